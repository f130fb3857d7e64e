"""Judges hostile programs in a process of its own, and prints the verdicts as JSON.

Arguments: who runs it ("as-is", or "ordinary": a user without rights, in a user namespace that this script makes), the
way of isolation ("auto" for the best that there is), a folder of the host, and names of tables of programs.
"""

import json
import os
import sys
import textwrap
from collections.abc import Sequence

from hostile_programs_frames import FRAMES
from hostile_programs_kernel import DOORS
from hostile_programs_python import INTERPRETER, LEFTOVERS, SLOW_INTERPRETER
from smallwit.verify import code
from smallwit.verify.code import CodeJob, isolation_level, judge_code
from smallwit.verify.sandbox import linux, pool

QUICK = {name: source for name, source in INTERPRETER.items() if name not in SLOW_INTERPRETER}
SLOW = {name: INTERPRETER[name] for name in SLOW_INTERPRETER}
TABLES = {"doors": DOORS, "frames": FRAMES, "interpreter": QUICK, "slow": SLOW, "leftovers": LEFTOVERS}
CASES = [((1, 2), 3), ((2, 5), 7)]
TESTS = ["assert f(1, 2) == 3", "assert f(2, 5) == 7"]
HONEST = "import os\ndef f(a, b): return a + b if not os.listdir() else 0\n"


def become_ordinary() -> None:
    """Be a user with an id of 1000 and no rights, who owns what the user before owned."""
    user, group = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    os.execv(sys.executable, [sys.executable, __file__, "as-is", *sys.argv[2:]])


def verdicts(tables: Sequence[str], host: str) -> list[list[object]]:
    """Table and name of each program, how it was judged, score and reason; honest programs between them."""
    named, jobs = [], []
    for table in tables:
        for index, (name, source) in enumerate(TABLES[table].items()):
            source = textwrap.dedent(source).replace("HOST", host)
            for way, asked in (("cases", {"cases": CASES}), ("tests", {"tests": TESTS})):
                if way == "tests" and table != "frames" and "the tests" not in name:
                    continue  # what a program is asked by makes no difference to the kernel or the interpreter
                named.append([table, name, way])
                jobs.append(CodeJob("", "f", source, **asked))
            if index % 4 == 0 or table == "leftovers":
                named.append(["honest", f"after {name}", "cases"])
                jobs.append(CodeJob("", "f", f"{HONEST}# {table} {index}", cases=CASES))
    found = judge_code(jobs, cpu_seconds=1.0, workers=6 if tables != ["leftovers"] else 1)
    return [[*name, verdict.score, verdict.reason] for name, verdict in zip(named, found, strict=True)]


if __name__ == "__main__":
    who, way, host, *tables = sys.argv[1:]
    if who == "ordinary":
        become_ordinary()
    if way != "auto":
        pool._ways[:] = [way]
    level = isolation_level()
    print(json.dumps({"user": os.geteuid(), "level": level, "verdicts": verdicts(tables, host)}))
    code.close()
