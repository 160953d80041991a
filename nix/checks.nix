# What `nix flake check` builds: the packages, what must hold of them, and a VM for each file in tests/.
{ pkgs }:

let
  inherit (pkgs) hauswart hauswart-training lib;

  # The configuration file of a host with these options.
  configured =
    options:
    (pkgs.nixos {
      imports = [ ../module.nix ];
      services.hauswart = options // {
        enable = true;
      };
    }).config.environment.etc."hauswart/hauswart.toml".source;

  tests = lib.mapAttrs' (
    file: _: lib.nameValuePair "vm-${lib.removeSuffix ".nix" file}" (pkgs.testers.runNixOSTest ./tests/${file})
  ) (lib.filterAttrs (file: _: lib.hasSuffix ".nix" file) (builtins.readDir ./tests));
in

tests
// {
  inherit hauswart hauswart-training;

  # A monitored host does without what makes models.
  closure = pkgs.runCommand "hauswart-closure" { closure = pkgs.closureInfo { rootPaths = [ hauswart ]; }; } ''
    if grep -E -- '-(torch|transformers|pyarrow|peft)-[0-9]' $closure/store-paths; then
      echo "the closure of hauswart has what only training needs" >&2
      exit 1
    fi
    touch $out
  '';

  settings = configured {
    bundles.low = ../models/bundles/low;
    settings.collect.interval_s = 2;
  };

  settings-refused = pkgs.testers.testBuildFailure (configured {
    settings.collect.intervall_s = 2;
  });

  # A bundle whose model is not what its manifest says must not become a package.
  bundle-refused = pkgs.testers.testBuildFailure (
    hauswart.makeBundle {
      tier = "low";
      src = pkgs.runCommand "hauswart-bundle-damaged" { } ''
        cp --recursive --no-preserve=mode ${../models/bundles/low} $out
        echo >>$out/model.onnx
      '';
    }
  );
}
