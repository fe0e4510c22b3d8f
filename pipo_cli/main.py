"""The console entry point. It imports almost nothing, so Ctrl-C has a proper message from the first moment."""

import sys


def main() -> None:
    """Run `pipo`."""
    try:
        from pipo_cli.app import app
    except KeyboardInterrupt:
        # The table of failures has not been imported yet.
        sys.stderr.write("pipo: interrupted; the same command goes on\n")
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
