# Retraining without network: it learns from what the host logged, writes a candidate and nothing else, and
# another unit lets that serve or says why not.
_:

{
  name = "hauswart-retrain";

  nodes.machine = {
    imports = [ ../../module.nix ];
    services.hauswart = {
      enable = true;
      retrain.enable = true;
      retrain.schedule = "*-01-01 00:00:00";
    };
    virtualisation = {
      cores = 2;
      memorySize = 4096;
    };
  };

  testScript = ''
    def show(unit, what):
        return machine.succeed(f"systemctl show --value --property={what} {unit}").strip()

    machine.wait_for_unit("hauswart.target")
    machine.wait_for_unit("hauswart-low.service")
    machine.succeed("systemctl is-active hauswart-retrain.timer")

    with subtest("the watching stages have no torch"):
        machine.fail("grep -l torch /proc/$(systemctl show --value --property=MainPID hauswart-low)/maps")

    machine.succeed(
        "for n in $(seq 200); do logger --tag=app$((n % 20)) --priority=user.$([ $((n % 3)) = 0 ] && echo err || echo info)"
        " 'worker '$((n % 20))' lost its lease after '$n' seconds'; done"
    )
    # Telemetry is written in segments; a stop writes what there is.
    machine.succeed("sleep 30; systemctl restart hauswart-low.service")
    machine.wait_for_unit("hauswart-low.service")

    with subtest("a candidate is made, in the only place where it may be"):
        machine.succeed("systemctl start hauswart-retrain.service", timeout=1800)
        assert show("hauswart-retrain", "Result") == "success"
        machine.succeed("test -e /var/lib/hauswart/candidates/low/*/manifest.json")
        machine.succeed("test $(stat --format=%U /var/lib/hauswart/candidates/low/*/model.onnx) = hauswart-retrain")
        assert show("hauswart-retrain", "PrivateNetwork") == "yes"

    with subtest("the switch judges it by itself and the host goes on"):
        machine.wait_until_succeeds(
            "test $(systemctl show --value --property=ExecMainExitTimestampMonotonic hauswart-switch) -gt 0", timeout=600
        )
        assert show("hauswart-switch", "Result") == "success"
        machine.succeed("hauswart models list --json")
        machine.succeed("systemctl is-active hauswart-low.service")
  '';
}
