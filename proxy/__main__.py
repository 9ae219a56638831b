"""Where the command begins; `healthcheck` does not import what it has no use for."""

import sys


def main() -> None:
    """Run `bearer-proxy` with the arguments of the process; ends the process."""
    if sys.argv[1:2] == ["healthcheck"]:
        from proxy import healthcheck  # noqa: PLC0415  it must end within 100 ms

        sys.exit(healthcheck.main(sys.argv[2:]))
    if sys.argv[1:2] == ["run"]:
        from proxy import hangup  # noqa: PLC0415  before all that takes time: a supervisor may be quick

        hangup.remember()
    from proxy.cli import main as cli  # noqa: PLC0415  importing everything takes several times as long

    cli(prog_name="bearer-proxy")


if __name__ == "__main__":
    main()
