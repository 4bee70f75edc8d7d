"""The command line of kip_flax from its repository: see kip_flax/modes/command_line.py.

python main.py --config=configs/kip_digits.py --workdir=runs/digits [--config.FIELD=VALUE ...]
"""

from kip_flax.modes.command_line import FLAGS, run

__all__ = ["FLAGS", "run"]

if __name__ == "__main__":
    run()
