"""The command line: distils a data set as a configuration says.

  python main.py --config=configs/kip_digits.py --workdir=runs/digits [--config.FIELD=VALUE ...]
  python main.py --config=configs/kip_digits.py --mode=evaluate --distilled=FILE.npz
  python main.py --config=configs/kip_digits.py --mode=transfer --distilled=FILE.npz --workdir=DIR
  python main.py --mode=predict --network=DIR --pictures=DIR --workdir=DIR
  python main.py --mode=predict --distilled=FILE.npz --pictures=DIR --workdir=DIR
  python main.py --config=configs/kip_digits.py --mode=plan
  python main.py --config=configs/kip_digits.py --mode=compare --compare=DIR,FILE.npz --workdir=DIR
  python main.py --mode=export --distilled=FILE.npz --workdir=DIR
  python main.py --config=configs/kip_digits.py --mode=import --distilled=FILE --workdir=DIR
  python main.py --mode=report --workdir=DIR[,DIR...]
  python main.py --mode=figures --workdir=DIR[,DIR...]

Exit code 0: finished, or stopped by SIGTERM or Ctrl-C with everything saved; 2: a mistake that one
line on stderr explains; 3: one of several processes was lost, which a line explains too; 4: some
pictures could not be read (--mode=predict), a line for each, and the others have their rows; 130:
stopped by Ctrl-C without saving.

Where kip_flax is installed by pip, `kip_flax` is the same command as `python main.py`.
"""

import argparse
import errno
import gc
import os
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from kip_flax import modes
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

# Errors that a configuration file, or a field set on the command line, may raise.
_CONFIG_ERRORS = (
    *(OSError, ImportError, SyntaxError, NameError),
    *(AttributeError, LookupError, TypeError, ValueError),
)

FLAGS = flags.FLAGS
_SOME_MODES = ("distilled", "compare", "network", "pictures", "layout")  # Flags that few read.
_ONCE = ("config", "workdir", "mode", *_SOME_MODES)  # absl would take the last of several.
_INTERRUPTED = 130  # Exit code after Ctrl-C, as of a shell.

config_flags.DEFINE_config_file("config", None, "File with the experiment, such as configs/*.py.")
flags.DEFINE_string(
    "workdir",
    None,
    "Folder for what the mode writes (--mode=evaluate: optional); --mode=report and figures: the "
    "folders of runs, with commas between them.",
)
flags.DEFINE_bool("quiet", False, "Say nothing but the outcome.")
flags.DEFINE_string("mode", "train", f"One of {', '.join(modes.NAMES)}, or a module of your own.")
flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0 of several.")
flags.DEFINE_integer("num_processes", None, "How many processes share the run.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.DEFINE_string(
    "distilled",
    None,
    "File with a distilled set (--mode=evaluate, transfer, predict, export, import).",
)
flags.DEFINE_list("compare", [], "Folders of runs and distilled files (--mode=compare).")
flags.DEFINE_string("network", None, "Folder with a trained network (--mode=predict).")
flags.DEFINE_string("pictures", None, "Folder with pictures (--mode=predict).")
flags.DEFINE_string("layout", "auto", "Whose layout the file has (--mode=import).")


def main(argv: list[str]) -> None:
    """Checks the command, sets JAX up and runs the mode."""
    try:
        mode = _checked_mode(argv)
        if not mode.uses_devices:
            mode.run(_command(Console(quiet=FLAGS.quiet)))
            return
        # JAX takes seconds to load: a mistake in the command is reported before.
        import jax

        from kip_flax import config as config_lib
        from kip_flax.runtime import multihost
        from kip_flax.runtime.waiting import Stopped

        if FLAGS.config is not None:
            config_lib.validate(FLAGS.config)
        _set_up_jax(0 if FLAGS.config is None else FLAGS.config.mesh.cpu_devices)
        console = Console(quiet=FLAGS.quiet, silent=not multihost.is_first())
        with multihost.abort_on_error(), console:
            if mode.one_process and jax.process_count() > 1:
                raise UserError(
                    f"--mode={FLAGS.mode} runs in one process: start it without a launcher."
                )
            try:
                mode.run(_command(console))
            except Stopped:  # Modes that keep their progress report that themselves.
                console.outcome("stopped: there was nothing to save yet")
            gc.freeze()  # Python's last collection would take seconds on a busy machine.
    except UserError as error:
        _exit_with(str(error))
    except PermissionError as error:  # Of a path that may not even be looked at.
        if error.filename is None:
            raise
        _exit_with(f"{error.filename} may not be read or written: name another, or allow it.")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _exit_with(f"{str(error.filename)[:60]}... is too long for a name of a file: name another.")
    except KeyboardInterrupt:  # Modes that save on Ctrl-C do so themselves.
        print("stopped without saving", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags as absl does, but reports a mistake in one line and exits with code 2."""
    try:
        rest = FLAGS(argv)
    except (flags.Error, *_CONFIG_ERRORS) as error:
        _exit_with(f"{_reason(error)} (see {_program()} --help)")
    given = [text.lstrip("-").partition("=")[0] for text in argv[1:] if text.startswith("-")]
    for name in _ONCE:
        if given.count(name) > 1:
            _exit_with(f"--{name} is given {given.count(name)} times: give it once.")
    if FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # --verbosity=0 shows the libraries' messages.
    return rest


def _reason(error: BaseException) -> str:
    """What an error of the command line says, in one line without the libraries' tracebacks."""
    of_field = isinstance(error, AttributeError)  # It holds a KeyError, whose text is the name.
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    flag, traceback, _ = text.partition("Error whilst parsing config file:")
    if traceback:  # ml_collections puts the error of `get_config` at its end.
        while error.__context__ is not None:
            error = error.__context__
        text = f"{flag}{error}"
    if of_field and isinstance(error, KeyError):
        text = "the configuration has no field " + text.replace("\nDid", ". Did")
    return " ".join(text.split())[:300]


def _checked_mode(argv: list[str]) -> modes.Mode:
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]!r}: options are written --name=value.")
    mode = modes.find(FLAGS.mode)
    _check_config(mode)
    if mode.one_process and FLAGS.num_processes not in (None, 1):
        raise UserError(f"--mode={FLAGS.mode} runs in one process: leave --num_processes out.")
    for needed in mode.needs:
        if not FLAGS[needed].value:
            raise UserError(f"--mode={FLAGS.mode} needs --{needed}=PATH.")
    if FLAGS.mode in modes.NAMES:
        _check_all_are_read(mode)
    if mode.check is not None:
        mode.check(_command(Console(silent=True)))
    return mode


def _check_all_are_read(mode: modes.Mode) -> None:
    """Raises UserError for a flag that has no effect: `--mode` may be forgotten."""
    for name in _SOME_MODES:
        if FLAGS[name].present and name not in (*mode.needs, *mode.takes):
            readers = [m for m in modes.NAMES if name in (*(f := modes.find(m)).needs, *f.takes)]
            raise UserError(
                f"--mode={FLAGS.mode} does not read --{name}: leave it out, or take --mode="
                f"{' or '.join(readers)}."
            )


def _check_config(mode: modes.Mode) -> None:
    if FLAGS.config is None:
        if not mode.wants_config:
            return
        raise UserError("no experiment: name one, for example --config=configs/kip_digits.py.")
    path = config_flags.get_config_filename(FLAGS["config"]).split(":")[0]
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}: --config names one, such as those in configs/.")


def _command(console: Console) -> modes.Command:
    home = os.path.expanduser  # The shell leaves --name=~/folder as it is.
    return modes.Command(
        config=FLAGS.config,
        workdir=",".join(map(home, (FLAGS.workdir or "").split(","))),
        distilled=home(FLAGS.distilled or ""),
        compare=tuple(map(home, FLAGS.compare)),
        layout=FLAGS.layout,
        network=home(FLAGS.network or ""),
        pictures=home(FLAGS.pictures or ""),
        console=console,
    )


def _set_up_jax(cpu_devices: int) -> None:
    """Joins the other processes, if there are any, and configures JAX."""
    from kip_flax.runtime import multihost, sharding

    sharding.prepare_cpu_devices()
    multihost.start(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    try:
        sharding.configure_jax(cpu_devices)
    except (RuntimeError, AssertionError):
        if not (platforms := os.environ.get("JAX_PLATFORMS")):
            raise
        raise UserError(
            f"JAX finds no device of JAX_PLATFORMS={platforms}: install requirements-cuda.txt or "
            f"requirements-tpu.txt, or unset the variable."
        ) from None


def _exit_with(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _program() -> str:
    """The program as the user typed it: 'python main.py', or the name of the installed script."""
    name = os.path.basename(sys.argv[0])
    return f"python {name}" if name.endswith(".py") else name


def run() -> None:
    """Runs the command in `sys.argv`."""
    sys.modules["__main__"].__doc__ = __doc__  # --help begins with it.
    for flag in FLAGS.get_key_flags_for_module(__name__):
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # --help lists those of the script.
    app.run(main, flags_parser=parse_flags)


def run_installed() -> None:
    """Runs the command of the installed script.

    The folder above that of the configuration and the working folder are on the module path, so
    that `from configs import default` works from any folder.
    """
    # absl imports the configuration while it parses the flags: its path is needed before.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-config", nargs="?", default="")
    path = parser.parse_known_args(sys.argv[1:])[0].config or ""
    above = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    sys.path[:0] = [*([above] if path else []), os.getcwd()]
    run()
