"""`hami` as another user: `as_user.py UID WORDS...`, started by root.

The interpreter may lie where only root can read it, so everything is imported before the change of user, by calls that
end early.
"""

import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress

from hami.cli.app import run


def import_everything() -> None:
    named = os.environ["HAMI_LOCAL_DIR"]
    with (
        tempfile.TemporaryDirectory() as empty,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        os.environ["HAMI_LOCAL_DIR"] = empty
        for words in (["ps"], ["ps", "--json"], ["run", "--gpus", "0", "--", "true"]):
            with suppress(SystemExit):
                run(words)
    os.environ["HAMI_LOCAL_DIR"] = named


def main() -> None:
    uid = int(sys.argv[1])
    import_everything()
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.umask(0o077)
    run(sys.argv[2:])


if __name__ == "__main__":
    main()
