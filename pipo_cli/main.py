"""The console entry point: so light that Ctrl-C is heard in words from the first moment."""

import sys


def main() -> None:
    """Run `pipo`."""
    try:
        from pipo_cli.app import app
    except KeyboardInterrupt:
        # Nothing of ours is there yet to say it.
        sys.stderr.write("pipo: interrupted; the same command goes on\n")
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
