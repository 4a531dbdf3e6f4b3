"""Compiled part of the overlap: count the pixels of a depth image with a neighbor in another.

Numba cannot vectorize a loop that reads from computed positions, since it has to assume that its
output overlaps its input. With `Lanes`, an intrinsic is written as plain arithmetic on sixteen
numbers at a time, which LLVM translates to the vector instructions of the processor. Everything is
in one module because numba's cache only notices changes in the module of a compiled function.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
FINEST, COARSEST = 2, 7  # pyramid levels: cells of 4 to 128 pixels
_AHEAD = 3  # blocks are prefetched this many steps of 16 before they are used
ROWS = 4  # rows of a band; a target's depth is padded by this number of rows above and below
_F32, _I32 = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


class Lanes:
    """A vector of 16 values and the usual operators; comparisons give masks."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def _with(self, other):
        return other.value if isinstance(other, Lanes) else _constant(self, other).value

    def _of(self, value):
        return Lanes(self.builder, value)

    @property
    def _is_float(self):
        return self.value.type == _FLOATS

    def __add__(self, other):
        add = self.builder.fadd if self._is_float else self.builder.add
        return self._of(add(self.value, self._with(other)))

    def __sub__(self, other):
        subtract = self.builder.fsub if self._is_float else self.builder.sub
        return self._of(subtract(self.value, self._with(other)))

    def __mul__(self, other):
        multiply = self.builder.fmul if self._is_float else self.builder.mul
        return self._of(multiply(self.value, self._with(other)))

    def __truediv__(self, other):
        return self._of(self.builder.fdiv(self.value, self._with(other)))

    def __rshift__(self, other):
        return self._of(self.builder.lshr(self.value, self._with(other)))

    def __and__(self, other):
        return self._of(self.builder.and_(self.value, other.value))

    def __or__(self, other):
        return self._of(self.builder.or_(self.value, other.value))

    def __invert__(self):
        return self._of(self.builder.not_(self.value))

    def __lt__(self, other):
        compare = self.builder.fcmp_ordered if self._is_float else self.builder.icmp_signed
        return self._of(compare("<", self.value, self._with(other)))

    def __gt__(self, other):
        compare = self.builder.fcmp_ordered if self._is_float else self.builder.icmp_signed
        return self._of(compare(">", self.value, self._with(other)))

    def _call(self, name, *others):
        kind = self.value.type
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(kind, [kind] * (1 + len(others))),
            f"llvm.{name}.v{LANES}{'f32' if self._is_float else 'i32'}",
        )
        arguments = [self.value, *(self._with(other) for other in others)]
        return self._of(self.builder.call(function, arguments))

    def times_plus(self, factor, summand):
        """self * factor + summand."""
        return self._call("fmuladd", factor, summand)

    def times_minus(self, factor, subtrahend):
        """self * factor - subtrahend."""
        negative = self._of(self.builder.fneg(self._with(subtrahend)))
        return self._call("fmuladd", factor, negative)

    def minimum(self, other):
        if self._is_float:
            return (self < other).where(self, other)
        return self._call("smin", other)

    def maximum(self, other):
        return self._call("smax", other)  # of int vectors

    def sqrt(self):
        return self._call("sqrt")

    def ceil(self):
        return self._call("ceil")

    def clip(self, low, high):
        return self._call("maxnum", low)._call("minnum", high)

    def to_int(self):
        return self._of(self.builder.fptosi(self.value, _INTS))

    def to_float(self):
        return self._of(self.builder.sitofp(self.value, _FLOATS))

    def float_bits(self):
        return self._of(self.builder.bitcast(self.value, _INTS))

    def where(self, yes, no):
        """Of a mask: `yes` in its lanes, `no` elsewhere."""
        like = yes if isinstance(yes, Lanes) else no
        return self._of(self.builder.select(self.value, like._with(yes), like._with(no)))

    def total(self):
        """Sum of the lanes of an int vector (an LLVM value)."""
        name = f"llvm.vector.reduce.add.v{LANES}i32"
        kind = ir.FunctionType(_I32, [_INTS])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [self.value])

    def to_bits(self):
        """Of a mask: the lanes as the low 16 bits of an int32 (an LLVM value)."""
        return self.builder.zext(self.builder.bitcast(self.value, ir.IntType(LANES)), _I32)


def _constant(like: Lanes, number) -> Lanes:
    scalar = _F32 if like.value.type == _FLOATS else _I32
    return Lanes(like.builder, ir.Constant(like.value.type, [ir.Constant(scalar, number)] * LANES))


def _spread(builder, scalar) -> Lanes:
    """An LLVM scalar in all lanes."""
    kind = ir.VectorType(scalar.type, LANES)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return Lanes(
        builder,
        builder.shuffle_vector(
            one, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * LANES)
        ),
    )


def _pointer(context, builder, array_type, array):
    """The data of a numba array argument."""
    return context.make_array(array_type)(context, builder, array).data


def _load(builder, data, index, width=LANES):
    """Consecutive values from data[index] on: `Lanes`, or an LLVM vector if narrower."""
    pointer = builder.gep(data, [index])
    kind = ir.VectorType(data.type.pointee, width)
    loaded = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    loaded.align = 4
    return Lanes(builder, loaded) if width == LANES else loaded


def _load_groups(builder, data, starts) -> Lanes:
    """Four consecutive values from each of four positions."""
    parts = [_load(builder, data, start, 4) for start in starts]

    def join(a, b, width):
        picks = ir.Constant(ir.VectorType(_I32, 2 * width), list(range(2 * width)))
        return builder.shuffle_vector(a, b, picks)

    halves = join(parts[0], parts[1], 4), join(parts[2], parts[3], 4)
    return Lanes(builder, join(*halves, 8))


def _store(builder, lanes: Lanes, data, index) -> None:
    pointer = builder.gep(data, [index])
    stored = builder.store(lanes.value, builder.bitcast(pointer, lanes.value.type.as_pointer()))
    stored.align = 4


def _gather_pairs(builder, data, index: Lanes) -> tuple[Lanes, Lanes]:
    """data[2 * index] and data[2 * index + 1] of floats, loaded together."""
    twice = builder.bitcast(data, ir.IntType(64).as_pointer())
    pairs = builder.bitcast(_gather(builder, twice, index).value, ir.VectorType(_F32, 2 * LANES))
    nothing = ir.Constant(pairs.type, ir.Undefined)

    def every_second(first):
        picks = ir.Constant(_INTS, list(range(first, 2 * LANES, 2)))
        return Lanes(builder, builder.shuffle_vector(pairs, nothing, picks))

    return every_second(0), every_second(1)


def _prefetch(builder, pointer) -> None:
    """Prefetch a cache line that is read soon."""
    byte = ir.IntType(8).as_pointer()
    numbers = [ir.Constant(_I32, n) for n in (0, 3, 1)]  # read, keep in all caches, data
    kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [builder.bitcast(pointer, byte), *numbers])


def _gather(builder, data, index: Lanes) -> Lanes:
    """data[index] lane by lane; every index must be in range.

    Sixteen plain loads are no slower than the gather instructions of processors.
    """
    gathered = ir.Constant(ir.VectorType(data.type.pointee, LANES), ir.Undefined)
    for lane in range(LANES):
        position = ir.Constant(_I32, lane)
        pointer = builder.gep(data, [builder.extract_element(index.value, position)])
        gathered = builder.insert_element(gathered, builder.load(pointer), position)
    return Lanes(builder, gathered)


@intrinsic
def _scan_band(typingctx, depth, ray_x, ray_y, stride, row, column, x, y, z, inner2, outer2):
    """Compare four rows of 16 pixels with (x, y, z).

    Returns 1 if one is nearer than the inner radius, plus 2 if one is nearer than the outer one.
    """
    f32 = types.float32
    signature = types.int32(
        depth, ray_x, ray_y, types.intp, types.intp, types.intp, f32, f32, f32, f32, f32
    )

    def codegen(context, builder, sig, args):
        depth, ray_x, ray_y = (_pointer(context, builder, sig.args[k], args[k]) for k in range(3))
        stride, row, column = args[3:6]
        x, y, z, inner2, outer2 = (_spread(builder, value) for value in args[6:])
        ray_u = _load(builder, ray_x, column)
        start = builder.add(builder.mul(row, stride), column)
        nearest = None
        for _ in range(ROWS):
            pz = _load(builder, depth, start)
            ray_v = _spread(builder, builder.load(builder.gep(ray_y, [row])))
            dx, dy, dz = pz.times_minus(ray_u, x), pz.times_minus(ray_v, y), pz - z
            squared = dz.times_plus(dz, dy.times_plus(dy, dx * dx))
            nearest = squared if nearest is None else nearest.minimum(squared)
            start = builder.add(start, stride)
            row = builder.add(row, ir.Constant(row.type, 1))
        none = ir.Constant(ir.IntType(32), 0)
        near = builder.icmp_unsigned("!=", (nearest < inner2).to_bits(), none)
        some = builder.icmp_unsigned("!=", (nearest < outer2).to_bits(), none)
        near, some = (builder.zext(flag, ir.IntType(32)) for flag in (near, some))
        return builder.or_(near, builder.shl(some, ir.Constant(ir.IntType(32), 1)))

    return signature, codegen


@njit(cache=True, nogil=True)
def _matches_exactly(p, q_depth, q_K, q_pose, t_depth, t_K, t_pose, u0, u1, v0, v1, radius):
    """Whether pixel p of the query matches a point in the target's window; in float64."""
    width = q_depth.shape[1]
    row, column = p // width, p % width
    z = q_depth[row, column]
    x = (column - q_K[0, 2]) / q_K[0, 0] * z
    y = (row - q_K[1, 2]) / q_K[1, 1] * z
    wx = q_pose[0, 0] * x + q_pose[0, 1] * y + q_pose[0, 2] * z + q_pose[0, 3]
    wy = q_pose[1, 0] * x + q_pose[1, 1] * y + q_pose[1, 2] * z + q_pose[1, 3]
    wz = q_pose[2, 0] * x + q_pose[2, 1] * y + q_pose[2, 2] * z + q_pose[2, 3]
    limit = radius * radius
    for v in range(v0, v1 + 1):
        for u in range(u0, u1 + 1):
            z = t_depth[v, u]
            if z > 0:
                x = (u - t_K[0, 2]) / t_K[0, 0] * z
                y = (v - t_K[1, 2]) / t_K[1, 1] * z
                dx = t_pose[0, 0] * x + t_pose[0, 1] * y + t_pose[0, 2] * z + t_pose[0, 3] - wx
                dy = t_pose[1, 0] * x + t_pose[1, 1] * y + t_pose[1, 2] * z + t_pose[1, 3] - wy
                dz = t_pose[2, 0] * x + t_pose[2, 1] * y + t_pose[2, 2] * z + t_pose[2, 3] - wz
                if dx * dx + dy * dy + dz * dz < limit:
                    return True
    return False


@intrinsic
def _classify(
    typingctx, groups, step, balls, count, depth, pyramid, f, stride, tall, wide, ball, window, size
):
    """Transform 16 blocks (four groups of siblings) to the target's camera; decide the clear cases.

    Returns the number of points in accepted blocks, the lanes to be scanned from bit 32 on, and
    the lanes to be split from bit 48 on. Writes the inputs of a scan to `ball` and `window`.
    """
    # f: target_from_query (12), fx fy cx cy, 1/fx 1/fy, nearest and farthest depth, radius +
    # margin, radius - margin, largest and smallest camera distance of a world meter, stretch of the
    # query's pose, last column, last row, and the ball above which a block is split without a scan.
    whole = types.int32
    signature = types.int64(
        *(groups, types.intp, balls, count, depth, pyramid, f, whole, whole, whole),
        *(ball, window, types.intp),
    )

    def codegen(context, builder, sig, args):
        def data(number):
            return _pointer(context, builder, sig.args[number], args[number])

        def index(number):
            return ir.Constant(ir.IntType(64), number)

        def scalar(number):
            return _spread(builder, builder.load(builder.gep(data(6), [index(number)])))

        def put(values, number, row):
            start = builder.add(builder.mul(args[12], index(row)), builder.mul(args[1], index(16)))
            _store(builder, values, data(number), start)

        first = builder.mul(args[1], index(4))
        starts = [
            builder.load(builder.gep(data(0), [builder.add(first, index(k))])) for k in range(4)
        ]

        # Prefetch the blocks of a later step, whose addresses the processor cannot predict. Values
        # beyond the end of the list are prefetched, but never read.
        for k in range(4):
            later = builder.add(first, index(_AHEAD * 4 + k))
            group = builder.load(builder.gep(data(0), [later]))
            _prefetch(builder, builder.gep(data(2), [builder.mul(group, index(16))]))

        def siblings(number, stride, offset):
            firsts = [builder.add(builder.mul(g, index(stride)), index(offset)) for g in starts]
            return _load_groups(builder, data(number), firsts)

        bx, by, bz, radius = (siblings(2, 16, 4 * axis) for axis in range(4))
        points = siblings(3, 4, 0)
        m = [scalar(k) for k in range(12)]
        fx, fy, cx, cy, ray_scale_x, ray_scale_y, near, far = (scalar(k) for k in range(12, 20))
        reach, sure_reach, stretch, shrink, own, u_max, v_max, big = (
            scalar(k) for k in range(20, 28)
        )

        px = bx.times_plus(m[0], by.times_plus(m[1], bz.times_plus(m[2], m[3])))
        py = bx.times_plus(m[4], by.times_plus(m[5], bz.times_plus(m[6], m[7])))
        pz = bx.times_plus(m[8], by.times_plus(m[9], bz.times_plus(m[10], m[11])))
        radius = radius * own
        outer = (reach + radius) * stretch
        inner = (sure_reach - radius) * shrink
        inner2 = (inner > 0.0).where(inner * inner, -1.0)
        ahead = pz > outer + 1e-3
        depth_of = ahead.where(pz, 1e3)

        # the target's point in the pixel that contains the projected center
        one = _constant(px, 1.0)
        per_z = one / depth_of
        column = ((px * per_z).times_plus(fx, cx)).clip(0.0, u_max)
        row = ((py * per_z).times_plus(fy, cy)).clip(0.0, v_max)
        column, row = (column + 0.5).to_int(), (row + 0.5).to_int()
        target_z = _gather(builder, data(4), (row + ROWS) * _spread(builder, args[7]) + column)
        dx = target_z * ((column.to_float() - cx) * ray_scale_x) - px
        dy = target_z * ((row.to_float() - cy) * ray_scale_y) - py
        dz = target_z - pz
        accepted = ahead & (dx.times_plus(dx, dy.times_plus(dy, dz * dz)) < inner2)

        # exact bounds of the ball's projection, plus a hundredth of a pixel for rounding errors
        span = depth_of * depth_of - outer * outer
        per_span = one / span
        half_u = (px.times_plus(px, span).sqrt() * outer * per_span).times_plus(fx, 0.01)
        half_v = (py.times_plus(py, span).sqrt() * outer * per_span).times_plus(fy, 0.01)
        mid_u = (px * depth_of * per_span).times_plus(fx, cx)
        mid_v = (py * depth_of * per_span).times_plus(fy, cy)
        u0 = (mid_u - half_u).clip(-1.0, u_max + 1.0).ceil().to_int().maximum(0)
        v0 = (mid_v - half_v).clip(-1.0, v_max + 1.0).ceil().to_int().maximum(0)
        u1 = ((mid_u + half_u).clip(-1.0, u_max) + 1.0).to_int() - 1
        v1 = ((mid_v + half_v).clip(-1.0, v_max) + 1.0).to_int() - 1
        outside = (u0 > u1) | (v0 > v1)

        # depth range over the window: an entry of the pyramid covers 2 x 2 cells, so four entries
        # of cells at least half as wide as the window cover it, and each of them can miss the ball
        wide = ((u1 - u0).maximum(v1 - v0)).maximum(4)
        power = ((wide.to_float().float_bits() >> 23) - 127).minimum(COARSEST + 1)
        tall, columns = _spread(builder, args[8]), _spread(builder, args[9])
        base = tall - (tall >> (power - FINEST))
        inside = ahead & ~outside
        left, top = u0 >> power, v0 >> power
        right, bottom = ((u1 >> power) - 1).maximum(left), ((v1 >> power) - 1).maximum(top)
        front, back = pz - outer, pz + outer
        missed = outside
        for across in (left, right):
            for down in (top, bottom):
                cell = inside.where((base + down) * columns + across, 0)
                min_z, max_z = _gather_pairs(builder, data(5), cell)
                miss = (min_z > back) | (max_z < front)
                missed = miss if across is left and down is top else missed & miss
        rejected = (back < near) | (front > far) | (ahead & (outside | missed))

        rest = ~(accepted | rejected)
        split = rest & (~ahead | (radius > big))
        put(px, 10, 0)
        put(py, 10, 1)
        put(pz, 10, 2)
        put(outer * outer, 10, 3)
        put(inner2, 10, 4)
        put(ahead.where(u0, 0), 11, 0)
        put(ahead.where(u1, u_max.to_int()), 11, 1)
        put(ahead.where(v0, 0), 11, 2)
        put(ahead.where(v1, v_max.to_int()), 11, 3)
        wide_int = ir.IntType(64)
        result = builder.zext(accepted.where(points, 0).total(), wide_int)
        for mask, shift in (((rest & ~split), 32), (split, 48)):
            bits = builder.zext(mask.to_bits(), wide_int)
            result = builder.or_(result, builder.shl(bits, index(shift)))
        return result

    return signature, codegen


@njit(cache=True, nogil=True, error_model="numpy")
def count_pair(
    balls, count, start, pixel, f, depth, ray_x, ray_y, pyramid,
    groups, ball, window, undecided, q_depth, q_K, q_pose, t_depth, t_K, t_pose, radius,
):  # fmt: skip
    """Count the pixels of the query (q) with a point of the target (t) within the radius (meters).

    Breadth first over the query's blocks, with one list of sibling groups per level. `groups`,
    `ball`, `window` and `undecided` are scratch memory.
    """
    stride = depth.shape[1]
    flat, ranges = depth.ravel(), pyramid.ravel()
    total = 0
    side = 0
    n = start[1] // 4
    for group in range(n):
        groups[0, group] = group
    for tree_level in range(4):
        leaf = tree_level == 3
        fan = 64 if tree_level == 0 else 4
        base = start[tree_level]
        child_base = 0 if leaf else start[tree_level + 1]
        while n % 4:
            groups[side, n] = start[4] // 4  # a group of empty blocks
            n += 1
        rest = 0
        for step in range(n // 4):
            result = _classify(
                groups[side], step, balls, count, flat, ranges, f, np.int32(stride),
                np.int32(pyramid.shape[0]), np.int32(pyramid.shape[1]), ball, window, ball.shape[1],
            )  # fmt: skip
            total += result & np.int64(0xFFFFFFFF)
            scan = np.uint64(result) >> np.uint64(32)
            split = scan >> np.uint64(16)
            either = (scan | split) & np.uint64(0xFFFF)
            if either:
                for lane in range(LANES):
                    bit = np.uint64(lane)
                    undecided[rest] = (step * LANES + lane) * 2 + ((split >> bit) & np.uint64(1))
                    rest += (either >> bit) & np.uint64(1)
        children = 0
        for t in range(rest):
            k = undecided[t] >> 1
            node = 4 * groups[side, k >> 2] + (k & 3)
            descend = (undecided[t] & 1) and not leaf
            if not descend:
                x, y, z = ball[0, k], ball[1, k], ball[2, k]
                outer2, inner2 = ball[3, k], ball[4, k]
                u0, u1 = np.intp(window[0, k]), np.intp(window[1, k])
                v0, v1 = np.intp(window[2, k]), np.intp(window[3, k])
                # Bands from the middle outwards; the first and the last may extend beyond the
                # window, where no point is near, or beyond the image, which is padded.
                bands = (v1 - v0 + ROWS) // ROWS
                row = v0 - (ROWS * bands - (v1 - v0 + 1)) // 2 + ROWS * ((bands - 1) // 2)
                hop = ROWS
                seen = 0
                for _ in range(bands):
                    for u in range(u0, u1 + 1, LANES):
                        seen |= _scan_band(
                            flat, ray_x, ray_y, stride, row + ROWS, u, x, y, z, inner2, outer2
                        )
                    if seen & 1:
                        break
                    row += hop
                    hop = -hop - ROWS if hop > 0 else -hop + ROWS
                if seen & 1:
                    total += count[node]
                elif seen and leaf:
                    total += _matches_exactly(
                        pixel[node - base], q_depth, q_K, q_pose, t_depth, t_K, t_pose,
                        u0, u1, v0, v1, radius,
                    )  # fmt: skip
                else:
                    descend = seen != 0
            if descend:
                first = (child_base + (node - base) * fan) // 4
                for group in range(first, first + fan // 4):
                    groups[1 - side, children] = group
                    children += 1
        n = children
        side = 1 - side
    return total
