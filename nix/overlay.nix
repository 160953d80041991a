# Adds `hauswart` and `hauswart-training` to a package set.
final: _prev: {
  hauswart = final.callPackage ./package.nix { };
  hauswart-training = final.callPackage ./package.nix { withTraining = true; };
}
