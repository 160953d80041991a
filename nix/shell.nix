# What `make lint` and `make unit` need, for those who have Nix: `nix develop`, then
# `ruff check . && mypy && lint-imports && pytest`.
{ pkgs }:

let
  extras = (pkgs.lib.importTOML ../pyproject.toml).project.optional-dependencies;
  name = requirement: builtins.head (builtins.match "([A-Za-z0-9-]+).*" requirement);
  # hauswart itself is the checkout; its own environment has the rest. What nixpkgs does not have is xllamacpp,
  # and llama-cpp does the same for the tests.
  tools = builtins.filter (one: one != "hauswart" && one != "xllamacpp") (map name extras.dev);
  environment = pkgs.python3.withPackages (
    python: pkgs.hauswart-training.requirements ++ map (one: python.${one}) tools
  );
in

pkgs.mkShell {
  packages = [
    environment
    pkgs.e2fsprogs
    pkgs.gnumake
    pkgs.iproute2
    pkgs.llama-cpp
    pkgs.nixfmt-tree
    pkgs.util-linux
  ];
  shellHook = ''
    export PYTHONPATH="$PWD"
  '';
}
