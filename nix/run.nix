# `nix run`: without arguments it watches this host, else it is the command itself. Who is not root keeps the
# state at home.
{ hauswart, writeShellApplication }:

writeShellApplication {
  name = "hauswart-run";
  text = ''
    if [ "$(id -u)" != 0 ]; then
      export HAUSWART_STATE_DIR="''${HAUSWART_STATE_DIR:-''${XDG_STATE_HOME:-$HOME/.local/state}/hauswart}"
    fi
    if [ $# = 0 ]; then set -- run; fi
    exec ${hauswart}/bin/hauswart "$@"
  '';
}
