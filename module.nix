# The NixOS module: `services.hauswart`. The units are the package's own; what differs on a host is a drop-in.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkIf mkOption types;

  cfg = config.services.hauswart;

  # One user for each set of privileges, as daemon/units/hauswart.sysusers has them elsewhere.
  users = [
    "hauswart-collect"
    "hauswart-low"
    "hauswart-middle"
    "hauswart-top"
    "hauswart-notify"
    "hauswart-retrain"
    "hauswart-switch"
    "hauswart-web"
  ];
  group = "hauswart";
  stages = [
    "collector"
    "low"
    "middle"
    "top"
    "notify"
  ];
  tiers = [
    "low"
    "middle"
    "top"
  ];

  # Without the overlay the packages are made from the host's own nixpkgs.
  hauswart = pkgs.hauswart or (pkgs.callPackage ./nix/package.nix { });
  hauswart-training =
    pkgs.hauswart-training or (pkgs.callPackage ./nix/package.nix { withTraining = true; });

  toml = pkgs.formats.toml { };
  rendered = toml.generate "hauswart.toml" cfg.settings;
  configFile =
    if cfg.checkConfig then
      pkgs.runCommand "hauswart-checked.toml" { } ''
        ${lib.getExe cfg.package} config check ${rendered}
        cp ${rendered} $out
      ''
    else
      rendered;

  # A directory of the configuration is verified while the system is built; a package was when it was built,
  # and what only the host has is verified by the daemon before it is read.
  bundleDirectory =
    tier: bundle:
    if builtins.isPath bundle then
      cfg.package.makeBundle {
        inherit tier;
        src = bundle;
      }
    else
      bundle;
  pinned = lib.filterAttrs (_: bundle: bundle != null) cfg.bundles;

  # Where a served model may be: loopback, one address, or for a name (which systemd does not know) anywhere.
  servedUrl = (cfg.settings.top or { }).served.url or "";
  servedHost =
    let
      found = builtins.match "https?://(\\[[^]]+]|[^/:]+)(:[0-9]+)?(/.*)?" servedUrl;
    in
    if found == null then "" else builtins.head found;
  servedReach =
    if builtins.match "localhost|127\\.[0-9.]+|\\[::1]" servedHost != null then
      "localhost"
    else if builtins.match "[0-9.]+" servedHost != null then
      servedHost
    else if builtins.match "\\[.*]" servedHost != null then
      builtins.head (builtins.match "\\[(.*)]" servedHost)
    else
      "any";

  probes = cfg.readers.dnsProbe != null || cfg.readers.gatewayProbe;

  memory =
    default: description:
    mkOption {
      inherit default description;
      type = types.strMatching "[0-9]+[KMGT]?|[0-9]+%|infinity";
      example = "1G";
    };

  # A list without its head resets what the unit has.
  instead = value: [
    ""
    value
  ];

  dropIn = settings: settings // { overrideStrategy = "asDropin"; };
in

{
  options.services.hauswart = {
    enable = lib.mkEnableOption "hauswart, the caretaker of this host";

    package = mkOption {
      type = types.package;
      default = hauswart;
      defaultText = lib.literalExpression "pkgs.hauswart";
      description = "What watches this host. The default is made from this host's own nixpkgs.";
    };

    settings = mkOption {
      type = types.submodule { freeformType = toml.type; };
      default = { };
      example = {
        language = "de";
        collect.interval_s = 2;
        notify.floor = "error";
      };
      description = ''
        What {file}`/etc/hauswart/hauswart.toml` says. `hauswart config show` lists all settings with those in
        force. The file can be read by every user of this host: no credentials here, see
        {option}`services.hauswart.notify.targetsFile`.
      '';
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether `hauswart config check` must accept the settings before the system can be built. Turn it off only
        where the package cannot run on the machine that builds.
      '';
    };

    bundles = lib.genAttrs tiers (
      tier:
      mkOption {
        type = types.nullOr (types.either types.package types.path);
        default = null;
        example = lib.literalExpression "./bundles/${tier}";
        description = ''
          The bundle that serves the ${tier} tier, whatever is installed or was retrained: a package (the flake's
          `lib.makeBundle`), a directory beside the configuration, which is verified while the system is built,
          or a string with a path on the host, which the daemon verifies. With null that one serves which
          `hauswart models install` or retraining made current, else the one that ships.
        '';
      }
    );

    limits = {
      CPUQuota = mkOption {
        type = types.strMatching "[0-9]+%";
        default = "100%";
        example = "50%";
        description = "How much of a core all stages together may take; {manpage}`systemd.resource-control(5)`.";
      };
      MemoryHigh = memory "256M" "From here on the stages' memory is reclaimed and they are slowed down.";
      MemoryMax = memory "512M" "Beyond this the kernel kills the largest; it is started again.";
    };

    retrain = {
      enable = lib.mkEnableOption ''
        retraining: the low tier's model learns from this host and its operator's answers, at idle priority and
        without network. What it makes serves only if a separate unit finds it worse at nothing.
        PyTorch becomes part of the system'';

      package = mkOption {
        type = types.package;
        default = hauswart-training;
        defaultText = lib.literalExpression "pkgs.hauswart-training";
        description = "A hauswart with the training commands.";
      };

      schedule = mkOption {
        type = types.singleLineStr;
        default = "*-*-* 03:30";
        example = "Sun 04:00";
        description = "When to retrain, as {manpage}`systemd.time(7)` describes calendar events.";
      };

      limits = {
        MemoryHigh = memory "2G" "From here on the memory of retraining is reclaimed.";
        MemoryMax = memory "3G" "Beyond this the kernel ends the retraining.";
      };
    };

    notify = {
      targetsFile = mkOption {
        type = types.nullOr types.externalPath;
        default = null;
        example = "/run/secrets/hauswart-targets";
        description = ''
          A file with one Apprise URL a line (mail, ntfy, webhook, ...), for root's eyes only: systemd hands it to
          the notifying stage as a credential, nobody else reads it, and it does not enter the Nix store.
        '';
      };

      hook = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = lib.literalExpression ''[ "''${pkgs.hello}/bin/hello" ]'';
        description = ''
          A program with its arguments that is started for each notice and gets the incident as JSON on its standard
          input. It runs in the sandbox of hauswart-notify.service; what it needs beyond that goes into
          {option}`systemd.services.hauswart-notify.serviceConfig`.
        '';
      };
    };

    web = {
      enable = lib.mkEnableOption ''
        the operator's page. It is started when somebody looks and ends by itself when nobody does. Without a
        password every user of this host may look and answer'';

      listen = mkOption {
        type = types.singleLineStr;
        default = "127.0.0.1:8470";
        example = "/run/hauswart-web.sock";
        description = ''
          Where systemd listens for it, as {manpage}`systemd.socket(5)` describes ListenStream=: loopback, or a unix
          socket for a reverse proxy. Anything else demands {option}`services.hauswart.web.passwordFile` or
          `settings.web.auth = "header"`. The page answers to the names that it knows: set `settings.web.listen`
          to the same (`unix:` before a path), or `settings.web.hosts` to what a proxy passes on.
        '';
      };

      passwordFile = mkOption {
        type = types.nullOr types.externalPath;
        default = null;
        example = "/run/secrets/hauswart-web";
        description = ''
          A file with the page's password in one line, for root's eyes only: systemd hands it to the page as a
          credential, and it does not enter the Nix store.
        '';
      };
    };

    served = {
      url = mkOption {
        type = types.singleLineStr;
        default = "";
        example = "http://127.0.0.1:11434";
        description = ''
          A chat-completions server (Ollama, llama.cpp, ...) whose model may explain incidents better; empty is off.
          For it the top tier's unit may reach that address and no other, but with a host's name, which systemd
          cannot resolve, any. Elsewhere than on loopback it is asked only with {option}`services.hauswart.served.consent`.
        '';
      };

      model = mkOption {
        type = types.singleLineStr;
        default = "";
        example = "qwen2.5:7b-instruct";
        description = "The model's name on that server.";
      };

      reads = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether it is also asked what log lines mean that no rule knows, and may open incidents by them; and what the
          cause of each incident is, and may correct what the rules say. Nobody is notified of an incident by words
          alone, nor of services that end, load that comes or a measured warning about memory, disks, files or dropped
          packets, before then, at most 20 seconds later; if the answer is that nothing is wrong, words and warnings
          are of severity info, measured errors of services and load a warning. What it is shown is redacted like
          evidence, and counts as that for {option}`services.hauswart.served.consent`.
        '';
      };

      consent = mkOption {
        type = types.listOf (types.strMatching "evidence");
        default = [ ];
        example = [ "evidence" ];
        description = ''
          What may leave this host for a server that is not on loopback. `evidence`: redacted evidence of incidents, that
          is log lines, metrics, and names of units, devices and users.
        '';
      };

      keyFile = mkOption {
        type = types.nullOr types.externalPath;
        default = null;
        example = "/run/secrets/hauswart-served";
        description = ''
          A file with the server's key in one line, for root's eyes only: systemd hands it to the top tier as a
          credential, and it does not enter the Nix store.
        '';
      };
    };

    readers = {
      kernelLog = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether to read {file}`/dev/kmsg` beside the journal. For it the collector gets that device and CAP_SYSLOG.
          The journal has the kernel's messages too: this is for hosts whose journal drops some.
        '';
      };

      dnsProbe = mkOption {
        type = types.nullOr types.singleLineStr;
        default = null;
        example = "example.org";
        description = "A name to resolve every now and then. For it the collector may use the network.";
      };

      gatewayProbe = mkOption {
        type = types.bool;
        default = false;
        description = "Whether to ask the default gateway for a sign of life. For it the collector may use the network.";
      };

      follow = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "/var/log/nginx/*.log" ];
        description = "Log files to follow beside the journal; glob patterns are allowed.";
      };

      groups = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "nginx" ];
        description = "Groups that the collector joins so that it may read the files it follows.";
      };
    };

    operators = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = ''
        Users who may see incidents and answer them without being root. They can read what hauswart keeps, which
        includes log lines of all services.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = (cfg.settings.notify or { }).targets or [ ] == [ ];
        message = ''
          services.hauswart.settings.notify.targets: notification targets hold credentials, and this file is copied
          to the Nix store, which every user reads. Put the URLs into a file that only root reads and name it in
          services.hauswart.notify.targetsFile.
        '';
      }
      {
        assertion = !(cfg.settings ? state_dir || cfg.settings ? runtime_dir);
        message = ''
          services.hauswart.settings: state_dir and runtime_dir cannot be changed here, since the units' sandboxes
          open /var/lib/hauswart and /run/hauswart alone. To keep the state on another disk, mount it there.
        '';
      }
      {
        assertion = !((cfg.settings.collect or { }).smart or false);
        message = ''
          services.hauswart.settings.collect.smart: smartctl needs raw access to the disks, which would undo the
          collector's sandbox. Let services.smartd watch them: what it logs reaches hauswart through the journal.
        '';
      }
      {
        assertion = servedUrl == "" || servedReach == "localhost" || (cfg.settings.top.served.consent or [ ]) != [ ];
        message = ''
          services.hauswart.served.url: ${servedHost} is not this host, and nothing says that evidence of incidents may
          leave it. services.hauswart.served.consent = [ "evidence" ] would send it redacted log lines, metrics, and names
          of units, devices and users.
        '';
      }
      {
        assertion = !cfg.retrain.enable || cfg.retrain.package.withTraining or false;
        message = ''
          services.hauswart.retrain.package: this package has no training commands. Take hauswart-training, or leave
          the option alone.
        '';
      }
      {
        assertion = !cfg.retrain.enable || (cfg.settings.models or { }).low or "auto" == "auto";
        message = ''
          services.hauswart.retrain.enable: what retraining makes could never serve, since the low tier's model is
          fixed by services.hauswart.bundles.low or settings.models.low. Unset that, or do not retrain.
        '';
      }
    ];

    services.hauswart.settings = {
      models = lib.mapAttrs (tier: bundle: toString (bundleDirectory tier bundle)) pinned;
      # Key by key, so that any of them may come through `settings` instead.
      top.served = {
        url = mkIf (cfg.served.url != "") cfg.served.url;
        model = mkIf (cfg.served.model != "") cfg.served.model;
        consent = mkIf (cfg.served.consent != [ ]) cfg.served.consent;
        reads = mkIf cfg.served.reads true;
      };
      web.auth = mkIf (cfg.web.passwordFile != null) "password";
      notify.hook = mkIf (cfg.notify.hook != [ ]) cfg.notify.hook;
      collect = {
        kernel_log = mkIf cfg.readers.kernelLog "on";
        dns_probe = mkIf (cfg.readers.dnsProbe != null) cfg.readers.dnsProbe;
        gateway_probe = mkIf cfg.readers.gatewayProbe true;
        follow = mkIf (cfg.readers.follow != [ ]) cfg.readers.follow;
      };
    };

    environment.etc."hauswart/hauswart.toml".source = configFile;
    environment.systemPackages = [ (if cfg.retrain.enable then cfg.retrain.package else cfg.package) ];

    users.users = lib.genAttrs users (_: {
      inherit group;
      isSystemUser = true;
      description = "hauswart";
    });
    users.groups.${group}.members = cfg.operators;

    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];

    # NixOS leaves the [Install] sections of packages alone.
    systemd.targets.hauswart = dropIn { wantedBy = [ "multi-user.target" ]; };
    systemd.timers.hauswart-retrain = mkIf cfg.retrain.enable (dropIn {
      wantedBy = [ "hauswart.target" ];
      timerConfig.OnCalendar = instead cfg.retrain.schedule;
    });

    systemd.sockets.hauswart-web = mkIf cfg.web.enable (dropIn {
      wantedBy = [ "sockets.target" ];
      listenStreams = instead cfg.web.listen;
    });

    systemd.slices.hauswart = dropIn { sliceConfig = cfg.limits; };
    systemd.slices.hauswart_retrain = dropIn { sliceConfig = cfg.retrain.limits; };

    systemd.services = lib.mkMerge [
      # Changed settings are read by `systemctl reload`; a changed package or unit restarts.
      (lib.genAttrs (map (stage: "hauswart-${stage}") stages) (
        _: dropIn { reloadTriggers = [ configFile ]; }
      ))

      # The page has no reload: it is started anew, if somebody has it open, and by the next look otherwise.
      (mkIf cfg.web.enable { hauswart-web = dropIn { restartTriggers = [ configFile ]; }; })

      # ssh-keygen checks the signatures of bundles: those that serve, that are shown and that retraining finds.
      (mkIf (cfg.settings ? models.allowed_signers) (
        lib.genAttrs (
          map (tier: "hauswart-${tier}") tiers
          ++ [ "hauswart-switch" ]
          ++ lib.optionals cfg.web.enable [ "hauswart-web" ]
          ++ lib.optionals cfg.retrain.enable [ "hauswart-retrain" ]
        ) (_: dropIn { path = [ pkgs.openssh ]; })
      ))

      {
        hauswart-collector.serviceConfig = lib.mkMerge [
          (mkIf cfg.readers.kernelLog {
            PrivateDevices = false;
            DeviceAllow = "/dev/kmsg r";
            ProtectKernelLogs = false;
            AmbientCapabilities = "CAP_SYSLOG";
            CapabilityBoundingSet = "CAP_SYSLOG";
          })
          (mkIf probes {
            RestrictAddressFamilies = "AF_INET AF_INET6";
            IPAddressAllow = "any";
          })
          (mkIf (cfg.readers.groups != [ ]) { SupplementaryGroups = cfg.readers.groups; })
        ];
      }

      (mkIf (servedUrl != "") {
        hauswart-top.serviceConfig = {
          LoadCredential =
            if cfg.served.keyFile == null then
              "hauswart.served"
            else
              "hauswart.served:${cfg.served.keyFile}";
          PrivateNetwork = false;
          RestrictAddressFamilies = "AF_INET AF_INET6";
          IPAddressAllow = servedReach;
        };
      })

      (mkIf (cfg.notify.targetsFile != null) {
        hauswart-notify.serviceConfig.LoadCredential = instead "hauswart.targets:${cfg.notify.targetsFile}";
      })

      (mkIf (cfg.web.passwordFile != null) {
        hauswart-web = dropIn {
          serviceConfig.LoadCredential = instead "hauswart.web:${cfg.web.passwordFile}";
        };
      })

      (mkIf cfg.retrain.enable {
        hauswart-retrain = dropIn {
          serviceConfig.ExecStart = instead "${lib.getExe cfg.retrain.package} --config /etc/hauswart/hauswart.toml retrain --no-promote";
        };
      })

      # The message catalogue, for `journalctl --catalog`. /usr/local is the one place where every journalctl looks.
      {
        hauswart-catalog = {
          description = "hauswart: message catalogue";
          wantedBy = [ "multi-user.target" ];
          after = [ "local-fs.target" ];
          serviceConfig = {
            Type = "oneshot";
            RemainAfterExit = true;
            ExecStart = [
              "${pkgs.coreutils}/bin/mkdir --parents /usr/local/lib/systemd/catalog"
              "${pkgs.coreutils}/bin/ln --symbolic --force ${cfg.package}/lib/systemd/catalog/hauswart.catalog ${cfg.package}/lib/systemd/catalog/hauswart.de.catalog /usr/local/lib/systemd/catalog/"
              "${config.systemd.package}/bin/journalctl --update-catalog"
            ];
          };
        };
      }
    ];
  };
}
