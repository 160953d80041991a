# A service that crashes over and over becomes one incident with its culprit, told to the operator by a hook.
{ pkgs, ... }:

{
  name = "hauswart-incident";

  nodes.machine = {
    imports = [ ../../module.nix ];
    services.hauswart = {
      enable = true;
      notify.hook = [
        "${pkgs.coreutils}/bin/tee"
        "--append"
        "/run/hauswart/metrics/told.json"
      ];
    };
    virtualisation.memorySize = 2048;

    systemd.services.unlucky = {
      startLimitIntervalSec = 60;
      serviceConfig = {
        ExecStart = "${pkgs.coreutils}/bin/false";
        Restart = "always";
        RestartSec = "300ms";
      };
    };
  };

  testScript = ''
    import json

    def incidents():
        said = machine.succeed("hauswart incidents --json --since 1h")
        return [json.loads(line) for line in said.splitlines()]

    def mine():
        return [one for one in incidents() if any(c["name"] == "unlucky.service" for c in one["culprits"])]

    machine.wait_for_unit("hauswart.target")
    machine.wait_for_unit("hauswart-collector.service")
    machine.wait_for_unit("hauswart-notify.service")

    machine.execute("systemctl start unlucky.service")
    machine.wait_until_succeeds("hauswart incidents --json --class crash-loop | grep unlucky.service", timeout=120)

    with subtest("one incident, of the right class, with advice"):
        found = mine()
        assert [one["fault_class"] for one in found] == ["crash-loop"], found
        name = found[0]["id"]
        machine.wait_until_succeeds(f"hauswart show {name} --json | grep '\"advice\":{{'", timeout=60)

    with subtest("the operator is told, and can answer"):
        machine.wait_until_succeeds("grep unlucky.service /run/hauswart/metrics/told.json", timeout=120)
        machine.succeed(f"hauswart feedback {name} good")

    with subtest("the journal finds the incident's lines"):
        machine.succeed(f"journalctl HAUSWART_INCIDENT={name} --output=cat | grep .")

    with subtest("it outlives a restart"):
        machine.succeed("systemctl restart hauswart.target")
        machine.wait_for_unit("hauswart-middle.service")
        assert [one["id"] for one in mine()] == [name]
  '';
}
