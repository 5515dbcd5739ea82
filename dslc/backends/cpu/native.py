"""Generated kernel source to an object file: Numba for the front half, LLVM's passes chosen here for the back half.

This is the only file that calls private parts of Numba and llvmlite; `tests/backends/test_native.py` is its contract test.
Numba types the source and lowers it to LLVM IR. From there on the module is ours: all functions of one source are linked,
everything but the entry is made private, one optimisation pipeline runs, one cached target machine emits the object. Numba's
own way would optimise every function twice, compile it into its JIT and keep it there for good.
"""

# mypy: disallow-untyped-calls=False
# (Numba annotates a part of what is called here.)

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, compiler, compiler_machinery, cpu, errors, interpreter, lowering, typed_passes, untyped_passes
from numba.core.codegen import CodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import context as typing_context
from numba.core.typing import templates

from dslc.backends.cpu import roots
from dslc.backends.cpu.lanes import Typing, define_intrinsic
from dslc.backends.cpu.simd import namespace, parse_signature

KERNEL = types.void(types.uintp, types.intp, types.intp, types.intp)  # row, thread, threads, batch

# Loops that fill or copy memory stay loops: a call of memset or memcpy would be a symbol from outside.
SELF_CONTAINED = '"no-builtins"'


class _Text(CodeLibrary):
    """Collects the IR that Numba lowers, and does nothing with it."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.modules: list[str] = []

    def add_ir_module(self, ir_module: ir.Module) -> None:
        for function in ir_module.functions:
            if not function.is_declaration:
                set.add(function.attributes, SELF_CONTAINED)  # llvmlite's own add knows no string attributes
        self.modules.append(cgutils.normalize_ir_text(str(ir_module)))

    def add_linking_library(self, library: Any) -> None:
        pass

    def finalize(self) -> None:
        pass

    def get_function(self, name: str) -> Any:
        raise KeyError(name)

    def get_llvm_str(self) -> str:
        return "\n".join(self.modules)

    def get_asm_str(self) -> str:
        return ""


@cache
def _functions_only() -> Any:
    """Numba's built-in functions without its attributes, most of which would import arrays and their friends."""
    from numba.core.typing import builtins  # noqa: F401  (registers them)

    view = templates.Registry()
    view.functions = templates.builtin_registry.functions
    view.globals = templates.builtin_registry.globals
    return view


class _Function(types.Function):
    """A function that kernels call: each combination of argument types is resolved once.

    Numba goes through all overloads of the function at every call, and registers an intrinsic with its global target,
    which starts Numba's runtime library.
    """

    def __init__(self, overloads: Any) -> None:
        super().__init__(overloads)
        self.resolved: dict[Any, Any] = {}
        self.intrinsics: dict[Any, Callable[..., Any]] = {}

    def augment(self, other: Any) -> _Function:
        return _Function(self.templates + other.templates)

    def get_call_type(self, context: Any, args: tuple[types.Type, ...], kws: Mapping[str, types.Type]) -> Any:
        if kws:
            raise errors.TypingError("calls in kernels have no keyword arguments")
        known = self.resolved.get(args)
        if known is None:
            if issubclass(self.templates[0], templates._IntrinsicTemplate):
                known = self._resolve_intrinsic(self.templates[0], context, args)
            else:
                known = super().get_call_type(context, args, kws)
            self.resolved[args] = known
        return known

    def _resolve_intrinsic(self, template: Any, context: Any, args: tuple[types.Type, ...]) -> Any:
        given = args if template.prefer_literal else tuple(types.unliteral(a) for a in args)
        typed = template._definition_func(context, *given)
        if typed is None:
            raise errors.TypingError(f"{template.key} does not take {args}")
        signature, self.intrinsics[signature.args] = typed
        return signature


class _Typing(typing_context.BaseContext):
    """Typing of kernels: Numba's built-in integer arithmetic and loops, and our intrinsics."""

    def _load_builtins(self) -> None:
        self.install_registry(_functions_only())

    def insert_global(self, gv: Any, gty: Any) -> None:
        super().insert_global(gv, _Function(gty.templates) if type(gty) is types.Function else gty)

    def resolve_function_type(self, func: Any, args: tuple[types.Type, ...], kws: Mapping[str, types.Type]) -> Any:
        resolved = self._lookup_global(func) or func
        if isinstance(resolved, _Function):
            return resolved.get_call_type(self, args, kws)
        return super().resolve_function_type(func, args, kws)


def _implementation(intrinsic: Callable[..., Any], context: Any, signature: Any) -> Callable[..., Any]:
    def emit(builder: ir.IRBuilder, args: list[ir.Value], loc: Any = None) -> Any:
        return intrinsic(context, builder, signature, args)

    return emit


class _Target(cpu.CPUContext):
    """Lowering of kernels: like Numba's CPU target without its runtime library and its arrays, lists and strings."""

    implementations: dict[Any, Any]  # of the current function

    def load_additional_registries(self) -> None:
        from numba.core import optional  # noqa: F401
        from numba.cpython import builtins, iterators, numbers, rangeobj, tupleobj  # noqa: F401

    def post_lowering(self, mod: ir.Module, library: Any) -> None:
        pass

    def subtarget(self, **options: Any) -> Any:
        made = super().subtarget(**options)
        made.implementations = {}
        return made

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        known = self.implementations.get((fn, sig))
        if known is None:
            intrinsic = fn.intrinsics.get(sig.args) if isinstance(fn, _Function) else None
            known = super().get_function(fn, sig, _firstcall) if intrinsic is None else _implementation(intrinsic, self, sig)
            self.implementations[fn, sig] = known
        return known


@cache
def _contexts() -> tuple[_Typing, _Target]:
    kernels = _Typing()
    return kernels, _Target(kernels)


class _Interpreter(interpreter.Interpreter):
    """Bytecode to Numba's IR, without a search for lists, dictionaries and `with`, which no kernel has."""

    def post_process(self, peepholes: Any, func_ir: Any) -> Any:
        return func_ir


@compiler_machinery.register_pass(mutates_CFG=True, analysis_only=False)
class _Translation(untyped_passes.TranslateByteCode):
    def run_pass(self, state: Any) -> bool:
        state.func_ir = _Interpreter(state.func_id).interpret(state.bc)
        return True


class _Lowering(lowering.Lower):
    """Numba's IR to LLVM's; where it fails, the line is named once, not kept ready at every statement."""

    loc: Any

    def lower_block(self, block: Any) -> None:
        self.pre_block(block)
        try:
            for statement in block.body:
                self.loc = statement.loc
                self.lower_inst(statement)
        except Exception as error:
            raise errors.LoweringError(f"{error} in {statement}", loc=self.loc) from error
        self.post_block(block)


@compiler_machinery.register_pass(mutates_CFG=True, analysis_only=False)
class _NativeLowering(typed_passes.NativeLowering):
    @property
    def lowering_class(self) -> Any:
        return _Lowering


class _Pipeline(compiler.CompilerBase):
    """Numba's passes that a kernel needs.

    There are no closures, rewrites, inlining or parallel loops. Names keep one type, so they need no SSA before LLVM makes it, and
    no values are counted, so none is deleted.
    """

    def define_pipelines(self) -> list[Any]:
        passes = compiler_machinery.PassManager("kernel")
        for step in (
            _Translation,
            untyped_passes.FixupArgs,
            typed_passes.NopythonTypeInference,
            _NativeLowering,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


def _flags() -> Any:
    flags: Any = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.boundscheck = False
    flags.error_model = "numpy"
    flags.nrt = False
    flags.release_gil = True
    flags.enable_ssa = False
    return flags


def _lower(function: Callable[..., None], signature: Any) -> tuple[Any, list[str]]:
    """Numba's function descriptor and the LLVM IR of `function`."""
    kernels, target = _contexts()
    library = _Text(target.codegen(), function.__name__)
    result = compiler.compile_extra(
        kernels, target, function, signature.args, types.void, _flags(), {}, library=library, pipeline_class=_Pipeline
    )
    return result.fndesc, library.modules


@cache
def _target_machine(cpu_name: str, features: str) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu_name, features=features, opt=3, reloc="pic", codemodel="small")


def _tile(width: int, modules: list[str], apart: dict[str, str]) -> Callable[..., Callable[[Callable[..., None]], Any]]:
    """The `@tile("void(...)")` decorator that lowers a helper function and makes it callable from the kernel.

    With `inline=False` the function stays a function: it has all registers to itself, where inlined it would share them with the
    loops around it. `apart` maps the symbols of these to their names.
    """

    def decorate(text: str, inline: bool = True) -> Callable[[Callable[..., None]], Any]:
        def lower(function: Callable[..., None]) -> Any:
            signature = parse_signature(text, width)
            descriptor, made = _lower(function, signature)
            modules.extend(made)
            if not inline:
                apart[descriptor.llvm_func_name] = function.__name__

            def typing(typingctx: Any, *given: types.Type) -> Typing:
                return signature, codegen

            def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
                context.call_internal_no_propagate(builder, descriptor, sig, args)  # a tile raises nothing
                return context.get_dummy_value()

            return define_intrinsic(function.__name__, len(signature.args), typing, function.__doc__ or "")

        return lower

    return decorate


def _optimise(machine: Any, module: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _loosened(text: str) -> str:
    """IR in which sums and products may be reordered and contracted, but for the functions of the math library."""
    functions = re.split(r"(?m)^(?=define )", text)
    exact = [i for i, f in enumerate(functions) if '@"dslc.' in f.split("\n", 1)[0]]
    loose = [re.sub(r"= (fadd|fsub|fmul) ", r"= \1 reassoc nsz contract ", f) for f in functions]
    return "".join(functions[i] if i in exact else loose[i] for i in range(len(functions)))


def compile_object(
    source: str,
    entry: str,
    width: int,
    *,
    extra: Mapping[str, object] | None = None,
    cpu_name: str | None = None,
    features: str | None = None,
    assembly: bool = False,
    order: str = "fixed",
) -> tuple[bytes, str, str]:
    """Compile the kernel `entry(row, thread, threads, batch)` of generated source.

    Returns the object file, the kernel's symbol in it, and its assembly text (empty unless asked for). The symbol is the
    entry's name and a digest of source and width, so equal kernels get equal symbols. `extra` adds globals to
    `simd.namespace(width)`; `cpu_name` and `features` (LLVM's names) default to the host's. The object refers to nothing
    outside itself. Its calling convention is Numba's: `i32 kernel(i8** result, i8** error, i64 row, i64 thread, i64 threads, i64 batch)`;
    the first two point at words that it may overwrite, and it returns 0. `order="free"` lets LLVM reorder and contract the kernel's own
    sums and products, but not those of mathematical functions.
    """
    modules: list[str] = []
    apart: dict[str, str] = {}
    scope = {**namespace(width), "tile": _tile(width, modules, apart), **(extra or {})}
    with global_compiler_lock:
        exec(compile(source, f"<kernel {entry}>", "exec"), scope)
        kernel: Any = scope[entry]
        descriptor, made = _lower(kernel, KERNEL)
        features = llvm.get_host_cpu_features().flatten() if features is None else features
        machine = _target_machine(llvm.get_host_cpu_name() if cpu_name is None else cpu_name, features)
        loose = [] if order == "fixed" else [order]
        symbol = f"{entry}_{hashlib.sha256(' '.join([str(width), *loose, source]).encode()).hexdigest()[:16]}"
        texts = [_loosened(text) if loose else text for text in (*made, *modules)]
        module = llvm.parse_assembly(texts[0])
        for text in texts[1:]:
            module.link_in(llvm.parse_assembly(text))
        if any(f.name == roots.name_of(width) for f in module.functions):
            module.link_in(llvm.parse_assembly(roots.definition(width, features)))
        module.name = symbol
        module.get_function(descriptor.llvm_func_name).name = symbol
        for value in (*module.functions, *module.global_variables):
            if value.name != symbol and not value.is_declaration:
                value.linkage = "internal"
        for mangled, name in apart.items():
            function = module.get_function(mangled)
            function.add_function_attribute("noinline")
            function.name = name  # Numba's names count what the process has compiled
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        _optimise(machine, module)
        return machine.emit_object(module), symbol, machine.emit_assembly(module) if assembly else ""
