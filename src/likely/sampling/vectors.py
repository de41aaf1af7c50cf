"""Vector instructions for the compiled executor, as LLVM code that numba inlines.

What a loop in numba does not get by itself: a matrix product whose sums stay in registers
(`TILES`), exp, tanh and sigmoid on whole vectors (`MAPS`, `lstm`), layer normalisation
(`standardize`), and attention to keys that stand side by side (`meet`, `soften`, `weigh`).
Each image's sums run over the inputs in the same order whatever the batch, so an image does not
depend on its batch.

Arguments `mem` and `weights` are flat arrays of one type, float32 or float64; places are offsets
into them.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
VECTOR_BYTES = 64 if WIDE else 32
# Rows of a tile by its vectors of outputs: as many sums as there are registers for.
ROWS = {4: 6, 3: 8, 2: 12, 1: 12} if WIDE else {4: 3, 3: 4, 2: 6, 1: 8}
HEIGHTS = {v: sorted({rows, *(r for r in (4, 2, 1) if r < rows)}) for v, rows in ROWS.items()}

_I64, _I32 = ir.IntType(64), ir.IntType(32)


class _Emit:
    """Emits arithmetic on vectors, or on single numbers for what is left over."""

    def __init__(self, builder: Any, bits: int, lanes: int) -> None:
        self.builder, self.bits, self.lanes = builder, bits, lanes
        scalar = ir.FloatType() if bits == 32 else ir.DoubleType()
        whole = ir.IntType(bits)
        self.type = ir.VectorType(scalar, lanes) if lanes > 1 else scalar
        self.int = ir.VectorType(whole, lanes) if lanes > 1 else whole
        kind = f"f{bits}"
        self.suffix = f"v{lanes}{kind}" if lanes > 1 else kind

    def constant(self, value: float) -> Any:
        return ir.Constant(self.type, [value] * self.lanes if self.lanes > 1 else value)

    def whole(self, value: int) -> Any:
        return ir.Constant(self.int, [value] * self.lanes if self.lanes > 1 else value)

    def call(self, name: str, *args: Any) -> Any:
        kind = ir.FunctionType(self.type, [self.type] * len(args))
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.{name}.{self.suffix}"
        )
        return self.builder.call(function, args)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.call("fma", a, b, c)

    def splat(self, value: Any) -> Any:
        if self.lanes == 1:
            return value
        empty = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, zeros)

    def load(self, base: Any, place: Any) -> Any:
        pointer = self.builder.gep(base, [place])
        if self.lanes > 1:
            pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        return self.builder.load(pointer, align=self.bits // 8)

    def store(self, value: Any, base: Any, place: Any) -> None:
        pointer = self.builder.gep(base, [place])
        if self.lanes > 1:
            pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        self.builder.store(value, pointer, align=self.bits // 8)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def div(self, a: Any, b: Any) -> Any:
        return self.builder.fdiv(a, b)

    def where(self, a: Any, relation: str, b: Any, yes: Any, no: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(relation, a, b), yes, no)

    def exp(self, x: Any) -> Any:
        """2^n times the Taylor series of exp on |r| <= ln 2 / 2; right to about one last place."""
        single = self.bits == 32
        low, high = (-87.0, 88.0) if single else (-708.0, 709.0)
        x = self.where(x, "<", self.constant(low), self.constant(low), x)
        x = self.where(x, ">", self.constant(high), self.constant(high), x)
        n = self.call("rint", self.mul(x, self.constant(math.log2(math.e))))
        # ln 2 in two parts, the first with few digits, so n times it is exact.
        first = 0.693359375 if single else 0.693145751953125
        r = self.fma(n, self.constant(-first), x)
        r = self.fma(n, self.constant(first - math.log(2.0)), r)
        degree = 7 if single else 13
        total = self.constant(1.0 / math.factorial(degree))
        for k in range(degree - 1, -1, -1):
            total = self.fma(total, r, self.constant(1.0 / math.factorial(k)))
        bias, mantissa = (127, 23) if single else (1023, 52)
        power = self.builder.add(self.builder.fptosi(n, self.int), self.whole(bias))
        scale = self.builder.bitcast(self.builder.shl(power, self.whole(mantissa)), self.type)
        return self.mul(total, scale)

    def falling(self, x: Any, slope: float) -> Any:
        """exp(-slope x), bounded so that products of two are finite."""
        bound = 40.0 if self.bits == 32 else 300.0
        y = self.mul(x, self.constant(-slope))
        y = self.where(y, ">", self.constant(bound), self.constant(bound), y)
        return self.exp(y)

    def sigmoid(self, x: Any) -> Any:
        unit = self.constant(1.0)
        return self.div(unit, self.add(unit, self.exp(self.mul(x, self.constant(-1.0)))))

    def tanh(self, x: Any) -> Any:
        unit, e = self.constant(1.0), self.falling(x, 2.0)
        return self.div(self.sub(unit, e), self.add(unit, e))

    def gate(self, f: Any, g: Any) -> Any:
        """tanh(f) sigmoid(g) with one division."""
        unit = self.constant(1.0)
        a, b = self.falling(f, 2.0), self.falling(g, 1.0)
        return self.div(self.sub(unit, a), self.mul(self.add(unit, a), self.add(unit, b)))

    def relu(self, x: Any) -> Any:
        zero = self.constant(0.0)
        return self.where(x, "<", zero, zero, x)

    def elu(self, x: Any) -> Any:
        zero = self.constant(0.0)
        return self.where(x, ">", zero, x, self.sub(self.exp(x), self.constant(1.0)))


_ONE = {
    "copy": lambda e, x: x,
    "negative": lambda e, x: e.sub(e.constant(-0.0), x),
    "relu": _Emit.relu,
    "elu": _Emit.elu,
    "tanh": _Emit.tanh,
    "sigmoid": _Emit.sigmoid,
    "silu": lambda e, x: e.mul(x, e.sigmoid(x)),
    "exp": _Emit.exp,
    "square": lambda e, x: e.mul(x, x),
}
_TWO = {
    "add": _Emit.add,
    "multiply": _Emit.mul,
    "gate": _Emit.gate,
    "linear_gate": lambda e, x, y: e.mul(x, e.sigmoid(y)),
}


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def _over(builder: Any, bits: int, count: Any, body: Any) -> None:
    """body(emit, place) for whole vectors and then for what is left."""
    lanes = 8 * VECTOR_BYTES // bits
    vectors = builder.sdiv(count, _const(lanes))
    with cgutils.for_range(builder, vectors) as loop:
        body(_Emit(builder, bits, lanes), builder.mul(loop.index, _const(lanes)))
    done = builder.mul(vectors, _const(lanes))
    with cgutils.for_range(builder, builder.sub(count, done)) as loop:
        body(_Emit(builder, bits, 1), builder.add(done, loop.index))


def _map(op: str) -> Any:
    @intrinsic
    def apply(typingctx, mem, out, x, y, count, factor):
        """mem[out + i] = factor * op(mem[x + i], mem[y + i]), i < count."""
        signature = types.void(mem, *[types.int64] * 4, types.float64)

        def generate(context, builder, signature, args):
            data = _data(context, builder, signature.args[0], args[0])
            bits = signature.args[0].dtype.bitwidth
            _, out, x, y, count, factor = args
            if bits == 32:
                factor = builder.fptrunc(factor, ir.FloatType())

            def body(e: _Emit, at: Any) -> None:
                first = e.load(data, builder.add(x, at))
                if op in _ONE:
                    value = _ONE[op](e, first)
                else:
                    value = _TWO[op](e, first, e.load(data, builder.add(y, at)))
                e.store(e.mul(value, e.splat(factor)), data, builder.add(out, at))

            _over(builder, bits, count, body)
            return context.get_dummy_value()

        return signature, generate

    return apply


@intrinsic
def _lstm(typingctx, mem, h, c, o, f, i, g, before, count):
    """c = sigmoid(f) before + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c)."""
    signature = types.void(mem, *[types.int64] * 8)

    def generate(context, builder, signature, args):
        data = _data(context, builder, signature.args[0], args[0])
        bits = signature.args[0].dtype.bitwidth
        _, h, c, o, f, i, g, before, count = args

        def body(e: _Emit, at: Any) -> None:
            def read(place: Any) -> Any:
                return e.load(data, builder.add(place, at))

            kept = e.mul(e.sigmoid(read(f)), read(before))
            state = e.add(kept, e.gate(read(g), read(i)))
            e.store(e.gate(state, read(o)), data, builder.add(h, at))
            e.store(state, data, builder.add(c, at))

        _over(builder, bits, count, body)
        return context.get_dummy_value()

    return signature, generate


def _tile(rows: int, vectors: int, panels: int = 1) -> Any:
    @intrinsic
    def tile(typingctx, mem, weights, taps, product, row):
        """A tile of a `Product`: `rows` images from `row` on, `vectors` vectors of outputs.

        `taps` [count, 3] gives for each tap the place of x, the step from one image to the next,
        and the inputs.

        Two panels: of one row, twice `vectors`; the weights of the second stand `out_step` behind
        those of the first.
        """
        signature = types.void(mem, weights, taps, product, types.int64)

        def generate(context, builder, signature, args):
            kinds = signature.args
            data, matrix, table = (_data(context, builder, kinds[k], args[k]) for k in range(3))
            out, out_step, start, start_step, bias, count, place = (
                builder.extract_value(args[3], k) for k in range(7)
            )
            row = args[4]
            bits = kinds[0].dtype.bitwidth
            e = _Emit(builder, bits, 8 * VECTOR_BYTES // bits)
            sums = [
                [cgutils.alloca_once(builder, e.type) for _ in range(vectors * panels)]
                for _ in range(rows)
            ]

            def at(base: Any, step: Any, r: int, v: int) -> Any:
                image = builder.mul(builder.add(row, _const(r)), step)
                return builder.add(builder.add(base, image), _const(v * e.lanes))

            for line in sums:
                for total in line:
                    builder.store(e.constant(0.0), total)
            with builder.if_then(builder.icmp_signed(">=", start, _const(0))):
                for r, line in enumerate(sums):
                    for v, total in enumerate(line):
                        builder.store(e.load(data, at(start, start_step, r, v)), total)
            with builder.if_then(builder.icmp_signed(">=", bias, _const(0))):
                for v in range(vectors * panels):
                    added = e.load(matrix, builder.add(bias, _const(v * e.lanes)))
                    for line in sums:
                        builder.store(e.add(builder.load(line[v]), added), line[v])
            position = cgutils.alloca_once_value(builder, place)
            with cgutils.for_range(builder, count) as tap:

                def entry(column: int, tap: Any = tap) -> Any:
                    index = builder.add(builder.mul(tap.index, _const(3)), _const(column))
                    return builder.load(builder.gep(table, [index]))

                x, step, inputs = entry(0), entry(1), entry(2)
                lines = [builder.gep(data, [at(x, step, r, 0)]) for r in range(rows)]
                first = builder.load(position)
                width = _const(vectors * e.lanes)
                with cgutils.for_range(builder, inputs) as k:
                    cell = builder.add(first, builder.mul(k.index, width))
                    factors = []
                    for _ in range(panels):
                        factors += [
                            e.load(matrix, builder.add(cell, _const(v * e.lanes)))
                            for v in range(vectors)
                        ]
                        cell = builder.add(cell, out_step)
                    for r, line in enumerate(sums):
                        value = e.splat(builder.load(builder.gep(lines[r], [k.index])))
                        for total, factor in zip(line, factors, strict=True):
                            builder.store(e.fma(value, factor, builder.load(total)), total)
                builder.store(builder.add(first, builder.mul(inputs, width)), position)
            for r, line in enumerate(sums):
                for v, total in enumerate(line):
                    e.store(builder.load(total), data, at(out, out_step, r, v))
            return context.get_dummy_value()

        return signature, generate

    return tile


def _added(builder: Any, e: _Emit, x: Any) -> Any:
    """The sum of a vector's lanes, one after another."""
    total, *others = (builder.extract_element(x, ir.Constant(_I32, i)) for i in range(e.lanes))
    for other in others:
        total = builder.fadd(total, other)
    return total


@intrinsic
def _standardize(typingctx, mem, weights, out, x, vectors, gain, shift, eps):
    """out = (x - mean) / sqrt(variance + eps) * gain + shift, over whole vectors."""
    signature = types.void(mem, weights, *[types.int64] * 5, types.float64)

    def generate(context, builder, signature, args):
        kinds = signature.args
        data = _data(context, builder, kinds[0], args[0])
        matrix = _data(context, builder, kinds[1], args[1])
        _, _, out, x, vectors, gain, shift, eps = args
        bits = kinds[0].dtype.bitwidth
        e = _Emit(builder, bits, 8 * VECTOR_BYTES // bits)
        scalar = e.type.element
        eps = builder.fptrunc(eps, scalar) if bits == 32 else eps
        count = builder.sitofp(builder.mul(vectors, _const(e.lanes)), scalar)

        def over(body: Any) -> None:
            with cgutils.for_range(builder, vectors) as loop:
                body(builder.mul(loop.index, _const(e.lanes)))

        sums = cgutils.alloca_once_value(builder, e.constant(0.0))

        def add(at: Any) -> None:
            builder.store(e.add(builder.load(sums), e.load(data, builder.add(x, at))), sums)

        over(add)
        mean = e.splat(builder.fdiv(_added(builder, e, builder.load(sums)), count))
        builder.store(e.constant(0.0), sums)

        def square(at: Any) -> None:
            value = e.sub(e.load(data, builder.add(x, at)), mean)
            builder.store(e.fma(value, value, builder.load(sums)), sums)

        over(square)
        variance = builder.fdiv(_added(builder, e, builder.load(sums)), count)
        scale = e.div(e.constant(1.0), e.call("sqrt", e.splat(builder.fadd(variance, eps))))

        def write(at: Any) -> None:
            value = e.mul(e.sub(e.load(data, builder.add(x, at)), mean), scale)
            by, to = e.load(matrix, builder.add(gain, at)), e.load(matrix, builder.add(shift, at))
            e.store(e.fma(value, by, to), data, builder.add(out, at))

        over(write)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _meet(typingctx, mem, scores, query, keys, size, blocks, scale):
    """scores[i] = scale <query, key i>; keys stand as many side by side as a vector has lanes.

    mem[keys + (block size + f) lanes + lane] is feature f of key block lanes + lane.
    """
    signature = types.void(mem, scores, *[types.int64] * 4, types.float64)

    def generate(context, builder, signature, args):
        kinds = signature.args
        data = _data(context, builder, kinds[0], args[0])
        pointer = _data(context, builder, kinds[1], args[1])
        _, _, query, keys, size, blocks, scale = args
        bits = kinds[0].dtype.bitwidth
        e = _Emit(builder, bits, 8 * VECTOR_BYTES // bits)
        scale = builder.fptrunc(scale, ir.FloatType()) if bits == 32 else scale
        with cgutils.for_range(builder, blocks) as block:
            total = cgutils.alloca_once(builder, e.type)
            builder.store(e.constant(0.0), total)
            first = builder.add(keys, builder.mul(block.index, builder.mul(size, _const(e.lanes))))
            with cgutils.for_range(builder, size) as k:
                asked = builder.load(builder.gep(data, [builder.add(query, k.index)]))
                key = e.load(data, builder.add(first, builder.mul(k.index, _const(e.lanes))))
                builder.store(e.fma(e.splat(asked), key, builder.load(total)), total)
            result = e.mul(builder.load(total), e.splat(scale))
            e.store(result, pointer, builder.mul(block.index, _const(e.lanes)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _soften(typingctx, scores, blocks):
    """scores = exp(scores - max) for some vectors; returns their sum."""
    signature = scores.dtype(scores, types.int64)

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        data = _data(context, builder, kind, args[0])
        blocks, bits = args[1], kind.dtype.bitwidth
        e = _Emit(builder, bits, 8 * VECTOR_BYTES // bits)

        def lanes(x: Any) -> list[Any]:
            return [builder.extract_element(x, ir.Constant(_I32, i)) for i in range(e.lanes)]

        best = cgutils.alloca_once_value(builder, e.load(data, _const(0)))
        with cgutils.for_range(builder, blocks) as loop:
            x = e.load(data, builder.mul(loop.index, _const(e.lanes)))
            builder.store(e.where(x, ">", builder.load(best), x, builder.load(best)), best)
        top, *others = lanes(builder.load(best))
        for other in others:
            top = builder.select(builder.fcmp_ordered(">", other, top), other, top)
        shift, sums = e.splat(top), cgutils.alloca_once_value(builder, e.constant(0.0))
        with cgutils.for_range(builder, blocks) as loop:
            at = builder.mul(loop.index, _const(e.lanes))
            x = e.exp(e.sub(e.load(data, at), shift))
            e.store(x, data, at)
            builder.store(e.add(builder.load(sums), x), sums)
        return _added(builder, e, builder.load(sums))

    return signature, generate


@intrinsic
def _weigh(typingctx, mem, scores, out, values, width, count, factor):
    """scores[out + j] = factor sum_i scores[i] mem[values + i width + j], j < width."""
    signature = types.void(mem, scores, *[types.int64] * 4, types.float64)

    def generate(context, builder, signature, args):
        kinds = signature.args
        data = _data(context, builder, kinds[0], args[0])
        pointer = _data(context, builder, kinds[1], args[1])
        _, _, out, values, width, count, factor = args
        bits = kinds[0].dtype.bitwidth
        e = _Emit(builder, bits, 8 * VECTOR_BYTES // bits)
        factor = builder.fptrunc(factor, ir.FloatType()) if bits == 32 else factor
        runs = builder.sdiv(count, _const(4))
        with cgutils.for_range(builder, builder.sdiv(width, _const(e.lanes))) as part:
            column = builder.mul(part.index, _const(e.lanes))
            sums = [cgutils.alloca_once(builder, e.type) for _ in range(4)]

            def add(total: Any, i: Any, column: Any = column) -> None:
                weight = builder.load(builder.gep(pointer, [i]))
                place = builder.add(builder.add(values, builder.mul(i, width)), column)
                builder.store(
                    e.fma(e.splat(weight), e.load(data, place), builder.load(total)), total
                )

            for total in sums:
                builder.store(e.constant(0.0), total)
            with cgutils.for_range(builder, runs) as loop:
                first = builder.mul(loop.index, _const(4))
                for k, total in enumerate(sums):
                    add(total, builder.add(first, _const(k)))
            done = builder.mul(runs, _const(4))
            with cgutils.for_range(builder, builder.sub(count, done)) as loop:
                add(sums[0], builder.add(done, loop.index))
            a, b, c, d = (builder.load(total) for total in sums)
            result = e.mul(e.add(e.add(a, b), e.add(c, d)), e.splat(factor))
            e.store(result, pointer, builder.add(out, column))
        return context.get_dummy_value()

    return signature, generate


# Numba adds the first argument itself.
lstm: Any = _lstm
standardize: Any = _standardize
meet: Any = _meet
soften: Any = _soften
weigh: Any = _weigh
MAPS = {op: _map(op) for op in (*_ONE, *_TWO)}
TILES = {(rows, v): _tile(rows, v) for v, heights in HEIGHTS.items() for rows in heights}
PAIRS = {v: _tile(1, v, panels=2) for v in HEIGHTS}
