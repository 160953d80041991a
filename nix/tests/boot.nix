# The whole of it starts with one option, as its users, inside its sandboxes, and stops and reloads on demand.
_:

{
  name = "hauswart-boot";

  nodes.machine = {
    imports = [ ../../module.nix ];
    services.hauswart.enable = true;
    # Else the notify stage has nothing to do, and ends.
    services.hauswart.settings.metrics.listen = "unix:/run/hauswart/metrics/metrics.sock";
    virtualisation.memorySize = 2048;
  };

  testScript = ''
    stages = ["collector", "low", "middle", "top", "notify"]

    def show(unit, what):
        return machine.succeed(f"systemctl show --value --property={what} {unit}").strip()

    machine.wait_for_unit("hauswart.target")
    with subtest("each stage notifies, says what it does and is fed to its watchdog"):
        for stage in stages:
            machine.wait_for_unit(f"hauswart-{stage}.service")
            assert show(f"hauswart-{stage}", "StatusText"), stage
            assert show(f"hauswart-{stage}", "WatchdogUSec") not in ("0", "infinity"), stage

    with subtest("no stage is root, and the slice has its limits"):
        for stage in stages:
            user = show(f"hauswart-{stage}", "User")
            assert user.startswith("hauswart-"), user
            assert show(f"hauswart-{stage}", "ControlGroup").startswith("/hauswart.slice/")
        assert show("hauswart.slice", "MemoryMax") == str(512 << 20)
        assert show("hauswart.slice", "CPUQuotaPerSecUSec") == "1s"

    with subtest("exposure as it is promised"):
        machine.succeed("systemd-analyze security --threshold=15 hauswart-collector.service")
        for tier in ("low", "middle", "top"):
            machine.succeed(f"systemd-analyze security --threshold=5 hauswart-{tier}.service")

    with subtest("the installation finds itself in order, and so does a model of each tier"):
        machine.succeed("hauswart doctor")
        machine.succeed("hauswart models verify")

    with subtest("a stage that is killed comes back"):
        before = show("hauswart-low", "MainPID")
        machine.succeed("systemctl kill --signal=SIGKILL hauswart-low.service")
        machine.wait_until_succeeds(
            f"test $(systemctl show --value --property=MainPID hauswart-low) -gt 1"
            f" && test $(systemctl show --value --property=MainPID hauswart-low) != {before}"
        )
        machine.wait_for_unit("hauswart-low.service")

    with subtest("reload keeps the process, stop ends all of them"):
        before = show("hauswart-top", "MainPID")
        machine.succeed("systemctl reload hauswart-top.service")
        machine.wait_for_unit("hauswart-top.service")
        assert show("hauswart-top", "MainPID") == before
        machine.succeed("systemctl stop hauswart.target")
        for stage in stages:
            machine.wait_until_fails(f"systemctl is-active hauswart-{stage}.service")
        machine.succeed("systemctl start hauswart.target")
        machine.wait_for_unit("hauswart-low.service")

    with subtest("the journal explains what hauswart says"):
        machine.succeed("journalctl --catalog --unit=hauswart-low.service | grep 'Defined-By: hauswart'")
  '';
}
