"""What a block of a response lacks to run, taken from the response's other blocks.

Models put imports or helpers into a block of their own. A top-level statement of another block that defines a name
which is missing, and what that statement is missing in turn, runs before the block. Nothing else of those blocks runs:
they may hold tries, examples and tests.
"""

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence

_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def missing_statements(code: str, before: str, others: Sequence[str]) -> str:
    """Return the statements of the blocks `others` that `code` lacks, in their order; empty if there are none.

    `before` runs before `code` in any case. Where several statements define a name, the last one counts; a name that
    none defines may come from an import of everything. A block that is not Python gives nothing, and lacks nothing.
    """
    try:
        return _missing(code, before, others)
    except RecursionError:  # what a parser nests may be too deep to be written again
        return ""


def _missing(code: str, before: str, others: Sequence[str]) -> str:
    have = _defined(before) | _defined(code)
    statements = [statement for other in others for statement in _statements(other)]
    last = {name: place for place, statement in enumerate(statements) for name in _names(statement)}
    everything = {place for place, statement in enumerate(statements) if "*" in _names(statement)}
    wanted, chosen = _lacking(code) - have, set[int]()
    while wanted:
        found = {last[name] for name in wanted if name in last} - chosen
        found |= everything - chosen if any(name not in last for name in wanted) else set()
        chosen |= found
        wanted = {name for place in found for name in _lacking(ast.unparse(statements[place]))} - have
    return "".join(f"{ast.unparse(statements[place])}\n" for place in sorted(chosen))


def _statements(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except _UNREADABLE:
        return []


def _names(statement: ast.stmt) -> set[str]:
    """Return the names that a definition, an import or an assignment binds; of other statements none."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
            return set() if future else {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        case ast.Assign():
            names = (name for target in statement.targets for name in ast.walk(target) if isinstance(name, ast.Name))
            return {name.id for name in names if isinstance(name.ctx, ast.Store)}
        case ast.AnnAssign(target=ast.Name() as target, value=ast.expr()):
            return {target.id}
    return set()


def _defined(code: str) -> set[str]:
    """Return the global names that a program defines."""
    tables = _tables(code)
    own = {symbol.get_name() for symbol in tables[0].get_symbols() if _binds(symbol)} if tables else set()
    declared = (symbol for table in tables[1:] for symbol in table.get_symbols() if symbol.is_declared_global())
    return own | {symbol.get_name() for symbol in declared if _binds(symbol)}


def _binds(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported()


def _lacking(code: str) -> set[str]:
    """Return the global names that a program uses and nobody defines; none where it imports everything of a module."""
    if any("*" in _names(statement) for statement in _statements(code)):
        return set()
    symbols = (symbol for table in _tables(code) for symbol in table.get_symbols())
    used = {symbol.get_name() for symbol in symbols if symbol.is_referenced() and symbol.is_global()}
    return {name for name in used - _defined(code) if not hasattr(builtins, name)}


def _tables(code: str) -> list[symtable.SymbolTable]:
    """Return the scopes of a program, its global one first."""
    try:
        return list(_with_children(symtable.symtable(code, "response", "exec")))
    except _UNREADABLE:
        return []


def _with_children(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _with_children(child)
