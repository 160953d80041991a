# A bad bundle never serves: it is refused when it is installed, given up for the one before when it breaks later,
# and the operator can go back by hand.
{ pkgs, ... }:

let
  shipped = ../../models/bundles/low;

  # The shipped bundle under another version.
  other = pkgs.runCommand "hauswart-bundle-other" { } ''
    cp --recursive --no-preserve=mode ${shipped} $out
    ${pkgs.hauswart.environment}/bin/python -P ${pkgs.writeText "rename.py" ''
      import sys
      from pathlib import Path

      import msgspec
      from models.bundle import MANIFEST, read_manifest, render_manifest

      folder = Path(sys.argv[1])
      manifest = msgspec.structs.replace(read_manifest(folder), version="other", digest="")
      (folder / MANIFEST).write_bytes(render_manifest(manifest))
    ''} $out
  '';
in

{
  name = "hauswart-rollback";

  nodes.machine = {
    imports = [ ../../module.nix ];
    services.hauswart.enable = true;
    virtualisation.memorySize = 2048;
  };

  testScript = ''
    import json

    def serving():
        _, said = machine.execute("hauswart models list --json")
        return next(row for row in json.loads(said) if row["tier"] == "low")

    def refused(command):
        code, said = machine.execute(f"{command} 2>&1")
        assert code == 4, (code, said)
        return said

    machine.wait_for_unit("hauswart.target")
    assert serving()["why"] == "shipped"

    with subtest("a damaged bundle is refused and nothing changes"):
        machine.succeed("cp --recursive --no-preserve=mode ${shipped} /tmp/damaged")
        machine.succeed("printf x >>/tmp/damaged/model.onnx")
        assert "damaged" in refused("hauswart models install /tmp/damaged")
        assert serving()["why"] == "shipped"

    with subtest("a sound one serves, without a restart"):
        machine.succeed("hauswart models install ${other}")
        assert (serving()["why"], serving()["serving"]["version"]) == ("current", "other")

    with subtest("one that breaks later is given up for the one before it, and is named"):
        machine.succeed("printf x >>/var/lib/hauswart/bundles/low/other/model.onnx")
        row = serving()
        assert row["why"] == "shipped" and row["refused"], row
        machine.succeed("systemctl is-active hauswart-low.service")

    with subtest("the operator goes back"):
        machine.succeed("hauswart models rollback low")
        assert serving()["why"] == "shipped" and not serving()["refused"]
        refused("hauswart models verify /var/lib/hauswart/bundles/low/other")
  '';
}
