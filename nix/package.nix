# hauswart as a package: `hauswart` watches a host, `hauswart-training` (withTraining = true) is the same with
# what makes models, so that only a host that trains has torch in its closure.
{
  lib,
  installShellFiles,
  python3,
  runCommand,
  stdenvNoCC,
  withTraining ? false,
}:

let
  project = (lib.importTOML ../pyproject.toml).project;

  # A requirement of pyproject.toml as nixpkgs' package of that name, with the oldest version that will do.
  # nixpkgs calls all of them as PyPI does.
  parse =
    requirement:
    let
      found = builtins.match "([A-Za-z0-9-]+)(>=([0-9.]+))?" requirement;
      name = builtins.elemAt found 0;
      floor = builtins.elemAt found 2;
    in
    {
      inherit name;
      floor = if floor == null then "0" else floor;
      package =
        python3.pkgs.${name}
          or (throw "hauswart: pyproject.toml asks for ${name}, which this nixpkgs does not have");
    };

  daemon = map parse project.dependencies;
  training = map parse project.optional-dependencies.training;

  tooOld =
    requirements:
    lib.concatMapStringsSep ", " (one: "${one.name} ${one.package.version} (needed: ${one.floor})") (
      builtins.filter (one: !lib.versionAtLeast one.package.version one.floor) requirements
    );

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../LICENSE
      ../README.md
      ../daemon
      ../models
      ../pyproject.toml
      ../training
    ];
  };

  # An application, and a module too: a stage starts its helpers with sys.executable, and the interpreter of a
  # wrapped script knows no package. That of an environment does, without a PYTHONPATH that a hook would inherit.
  library = python3.pkgs.toPythonModule (
    python3.pkgs.buildPythonApplication {
      pname = "hauswart";
      inherit (project) version;
      inherit meta src;
      pyproject = true;
      build-system = [ python3.pkgs.setuptools ];
      dependencies = map (one: one.package) daemon;
      pythonImportsCheck = [
        "daemon"
        "models"
        "training"
      ];
    }
  );

  requirements = map (one: one.package) (daemon ++ lib.optionals withTraining training);
  environment = python3.withPackages (_: [ library ] ++ requirements);

  # onnxruntime cannot be imported in aarch64's build sandbox, which has no /sys; there the bytes are checked and
  # the model is not tried out.
  verify =
    tier: directory:
    if stdenvNoCC.hostPlatform.isAarch64 then
      "${environment}/bin/python -P ${./verify.py} ${tier} ${directory}"
    else
      "${environment}/bin/hauswart models verify --tier ${tier} ${directory}";

  meta = {
    inherit (project) description;
    license = lib.licenses.mit;
    mainProgram = "hauswart";
    platforms = lib.platforms.linux;
  };
in

# The daemon was tested with its bounds and none below; training may well work with something older.
lib.throwIf (tooOld daemon != "") "hauswart: too old in this nixpkgs: ${tooOld daemon}" (
  lib.warnIf (withTraining && tooOld training != "")
    "hauswart-training: older in this nixpkgs than what it was tested with: ${tooOld training}"
    (stdenvNoCC.mkDerivation {
      pname = if withTraining then "hauswart-training" else "hauswart";
      inherit (project) version;
      inherit meta src;
      nativeBuildInputs = [ installShellFiles ];
      dontConfigure = true;
      dontBuild = true;

      # No patchShebangs and no strip: there is nothing of ours to patch behind the link.
      dontFixup = true;

      installPhase = ''
        runHook preInstall
        mkdir -p $out/bin
        ln -s ${environment}/bin/hauswart $out/bin/hauswart

        shopt -s nullglob
        install -Dm444 -t $out/lib/systemd/system daemon/units/*.{service,slice,socket,target,timer}
        install -Dm444 -t $out/lib/systemd/catalog daemon/units/*.catalog
        install -Dm444 daemon/units/hauswart.tmpfiles $out/lib/tmpfiles.d/hauswart.conf
        shopt -u nullglob
        substituteInPlace $out/lib/systemd/system/*.service --replace-quiet @hauswart@ $out/bin/hauswart

        install -Dm444 -t $out/share/doc/hauswart README.md daemon/PROTOCOL.md
        runHook postInstall
      '';

      postInstall = lib.optionalString (stdenvNoCC.buildPlatform.canExecute stdenvNoCC.hostPlatform) ''
        installShellCompletion --cmd hauswart \
          --bash <(_HAUSWART_COMPLETE=source_bash $out/bin/hauswart) \
          --zsh <(_HAUSWART_COMPLETE=source_zsh $out/bin/hauswart) \
          --fish <(_HAUSWART_COMPLETE=source_fish $out/bin/hauswart)
      '';

      doInstallCheck = stdenvNoCC.buildPlatform.canExecute stdenvNoCC.hostPlatform;
      installCheckPhase = ''
        runHook preInstallCheck
        test "$($out/bin/hauswart --version)" = "hauswart ${project.version}"
        touch empty.toml
        $out/bin/hauswart config check empty.toml
        for tier in low middle top; do
          ${verify "$tier" "${library}/${python3.sitePackages}/models/bundles/$tier"}
        done
        if grep -r @hauswart@ $out/lib; then exit 1; fi
        runHook postInstallCheck
      '';

      passthru = {
        inherit environment requirements withTraining;

        # A tier's bundle from a directory, every byte checked while it is built.
        makeBundle =
          { tier, src }:
          runCommand "hauswart-bundle-${tier}" { } ''
            cp --recursive --no-preserve=mode ${src} $out
            ${verify tier "$out"}
          '';
      };
    })
)
