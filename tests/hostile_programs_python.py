"""Programs that use the interpreter or the standard library against the judge. `f(a, b)` should be a + b.

"HOST" stands for a folder of the host that anybody may write to.
"""

from hostile_programs_runtime import RUNTIME

INTERPRETER = {
    "repr that ends all": """
        import os
        class Odd:
            def __repr__(self): os._exit(0)
            __str__ = __format__ = __bytes__ = __fspath__ = __dir__ = __sizeof__ = __repr__
        def f(a, b): raise ValueError(Odd(), [Odd()])
    """,
    "name that cannot be read": """
        class Name(type):
            @property
            def __name__(cls): raise SystemExit(0)
            @property
            def __mro__(cls): return (ValueError,)
        class Odd(Exception, metaclass=Name): pass
        def f(a, b): raise Odd
    """,
    "name without an end": """
        class Odd(Exception): pass
        Odd.__name__ = "x" * (1 << 26)
        def f(a, b): raise Odd
    """,
    "names of exceptions that are none": """
        class Odd(BaseException): pass
        Odd.__name__ = "copyright"
        def f(a, b): raise Odd
    """,
    "group of exceptions": """
        def f(a, b):
            error = ValueError(3)
            for _ in range(100000): error = ExceptionGroup("x", [error])
            raise error
    """,
    "cause of itself": """
        def f(a, b):
            one, two = ValueError(1), ValueError(2)
            one.__cause__, two.__context__ = two, one
            raise one
    """,
    "finalizer of the result": """
        import os
        class Last(list):
            def __del__(self): os._exit(0)
        def f(a, b): return Last([3])
    """,
    "finalizers that bring themselves back": """
        kept = []
        class Again:
            def __del__(self):
                kept.append(self)
                if len(kept) < 1000: Again()
        def f(a, b): Again(); return 0
    """,
    "subclasses of subclasses": """
        class A(int): pass
        for _ in range(300): A = type("A", (A,), {})
        def f(a, b): return A(0)
    """,
    "integer that lies of its length": """
        class Lie(int):
            bit_length = to_bytes = __index__ = __int__ = __abs__ = lambda self, *a, **k: 3
        def f(a, b): return Lie(0)
    """,
    "text that lies of its length": """
        class Lie(str):
            __len__ = lambda self: 0
            __str__ = lambda self: "3"
        def f(a, b): return Lie("x" * (1 << 27))
    """,
    "bytes by the buffer protocol": """
        class Lie(bytes):
            def __buffer__(self, flags): return memoryview(b"3")
            __bytes__ = lambda self: b"3"
        def f(a, b): return [Lie(b""), bytearray(1 << 26), memoryview(b"3")]
    """,
    "complex that lies": """
        class Lie(complex):
            real = property(lambda self: self.imag)
            imag = property(lambda self: 1 / 0)
        def f(a, b): return Lie(0)
    """,
    "list changed while it is read": """
        class Grow:
            @property
            def __class__(self):
                kept.extend([Grow()] * 1000)
                return int
        kept = [Grow()]
        def f(a, b): return kept
    """,
    "dict changed by its keys": """
        class Key:
            def __hash__(self): kept.clear(); return 1
            def __eq__(self, other): kept[Key()] = 1; return True
        kept = {}
        def f(a, b): kept[Key()] = 1; kept[Key()] = 2; return kept
    """,
    "class that changes": """
        class A(list): pass
        class B(list): __slots__ = ()
        class Turning:
            @property
            def __class__(self):
                self.__dict__["n"] = self.__dict__.get("n", 0) + 1
                return (list, dict, int)[self.n % 3]
        def f(a, b): return [Turning()] * 40
    """,
    "colliding members for the tests": "def f(a, b): return {i * (2**61 - 1) for i in range(1 << 12)}",
    "colliding floats": "def f(a, b): return {float(i << 61): 0 for i in range(1 << 12)}",
    "regex bomb": "import re\ndef f(a, b): return re.match(r'(a|a)*$', 'a' * 40 + 'b')",
    "large number as text": """
        import sys
        sys.set_int_max_str_digits(0)
        def f(a, b): return str(7 ** (1 << 17))
    """,
    "large number for the tests": "def f(a, b): return 1 << (1 << 24)",
    "power": "def f(a, b): return 9 ** 9 ** 9",
    "deflate bomb": """
        import zlib
        def f(a, b):
            bomb = zlib.compress(bytes(1 << 24))
            return b"".join(zlib.decompress(bomb) for _ in range(64))
    """,
    "tar that leads out": """
        import io, tarfile
        def f(a, b):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name, kind, link in (("HOST/mark", b"0", ""), ("l", b"2", "HOST"), ("l/mark", b"0", "")):
                    member = tarfile.TarInfo(name); member.type, member.linkname = kind, link
                    archive.addfile(member)
            file.seek(0)
            try: tarfile.open(fileobj=file).extractall(filter="fully_trusted")
            except OSError: pass
            return 0
    """,
    "sparse file": """
        import os
        def f(a, b):
            with open("sparse", "wb") as file: file.truncate(1 << 40)
            return a + b if os.path.getsize("sparse") == 1 << 40 else 0
    """,
    "file space asked for": """
        import os
        def f(a, b):
            for number in range(4096):
                with open(f"x{number}", "wb") as file: os.posix_fallocate(file.fileno(), 0, 1 << 24)
            return a + b
    """,
    "pickle that runs": "import os, pickle\ndef f(a, b): return pickle.loads(b'cos\\n_exit\\n(I0\\ntR.')",
    "marshal and a code of one's own": """
        import types
        def f(a, b): return 0
        f.__code__ = f.__code__.replace(co_code=bytes(200), co_consts=())
    """,
    "code that reads past its stack": """
        def f(a, b): return 0
        f.__code__ = f.__code__.replace(co_code=b"\\x01\\x00" * 100 + b"S\\x00", co_stacksize=0)
    """,
    "deep recursion in C, by JSON": "import json\ndef f(a, b): return json.loads('[' * 10**5)",
    "deep recursion in C, by repr": """
        def f(a, b):
            x = []
            for _ in range(10**5): x = [x]
            return repr(x)
    """,
    "deep recursion in C, by pickle": """
        import pickle, sys
        sys.setrecursionlimit(10**8)
        def f(a, b):
            x = []
            for _ in range(10**5): x = [x]
            return pickle.dumps(x)
    """,
    "deep recursion in C, by ast": "import ast\ndef f(a, b): return ast.literal_eval('(' * 10**5 + ')' * 10**5)",
    "deep recursion in C, by compare": """
        import sys
        sys.setrecursionlimit(10**8)
        def f(a, b):
            x, y = [], []
            for _ in range(10**5): x, y = [x], [y]
            return x == y
    """,
    "deep recursion in C, by freeing": """
        def f(a, b):
            x = None
            for _ in range(10**5): x = (x, lambda: x)
            return 0
    """,
    "deep recursion in C, by regex": "import re\ndef f(a, b): return re.compile('(' * 5000 + ')' * 5000)",
    "iterators in iterators": """
        import itertools
        def f(a, b):
            x = iter([3])
            for _ in range(10**5): x = itertools.chain(x, ())
            return list(x)
    """,
    **RUNTIME,
}  # fmt: skip

# What they leave in their folder, the next program must not find.
LEFTOVERS = {
    "folders without an end": """
        import os
        def f(a, b):
            for _ in range(1500): os.mkdir("d"); os.chdir("d")
            return 0
    """,
    "folders that nobody may enter": """
        import os
        def f(a, b):
            for name in ("a", "b"):
                os.makedirs(f"{name}/c")
                open(f"{name}/c/mark", "w").write("3")
            os.mkdir("closed", 0o300); open("closed/mark", "w").write("3"); os.mkdir("closed/in", 0)
            return 0
    """,
    "names of every byte": """
        import os
        def f(a, b):
            for byte in range(1, 256):
                if byte != 47: open(bytes([byte]) * 200, "w").close()
            return 0
    """,
    "disk filled and the right sum": """
        import os, time
        def f(a, b):
            for number in range(4): os.posix_fallocate(os.open(str(number), os.O_CREAT | os.O_RDWR), 0, 15 << 20)
            time.sleep(0.5)
            return a + b
    """,
}

# These run until a limit ends them.
SLOW_INTERPRETER = ("power", "regex bomb")
