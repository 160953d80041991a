{
  description = "hauswart, the caretaker of a Linux host";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem =
        make:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
          system: make (nixpkgs.legacyPackages.${system}.extend self.overlays.default)
        );
    in
    {
      overlays.default = import ./nix/overlay.nix;

      nixosModules.default.imports = [ ./module.nix ];

      packages = forEachSystem (pkgs: {
        inherit (pkgs) hauswart hauswart-training;
        default = pkgs.hauswart;
      });

      apps = forEachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (pkgs.callPackage ./nix/run.nix { });
          meta.description = "Watch this host in the foreground, or run a hauswart command";
        };
      });

      # A bundle package from a directory, verified while it is built:
      # makeBundle { inherit pkgs; tier = "low"; src = ./low; }
      lib.makeBundle =
        {
          pkgs,
          tier,
          src,
        }:
        self.packages.${pkgs.stdenv.hostPlatform.system}.hauswart.makeBundle { inherit tier src; };

      checks = forEachSystem (pkgs: import ./nix/checks.nix { inherit pkgs; });

      devShells = forEachSystem (pkgs: {
        default = import ./nix/shell.nix { inherit pkgs; };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
