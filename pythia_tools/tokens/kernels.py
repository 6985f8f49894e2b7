"""Compiled loops of the token stores (numba; compiled once, cached on disk)."""

import numba
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def _memcpy(typing_context, target, target_at, source, source_at, count):  # type: ignore[no-untyped-def]
    """C's memcpy between two uint8 arrays; numba's own slice assignment goes byte by byte, some ten times slower."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to = context.make_array(signature.args[0])(context, builder, args[0])
        of = context.make_array(signature.args[2])(context, builder, args[2])
        cgutils.raw_memcpy(builder, builder.gep(to.data, [args[1]]), builder.gep(of.data, [args[3]]), args[4], 1)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), emit


@numba.njit(nogil=True, cache=True, boundscheck=False)
def copy_segments(  # type: ignore[no-untyped-def]
    data, base, source, length, target, out, first, last,
):
    """What lies in `data` (bytes [base, base+len)) of each segment k in [first, last) goes to `out[target[k]:]`."""
    end = base + data.size
    for k in range(first, last):
        start = max(source[k], base)
        stop = min(source[k] + length[k], end)
        if start < stop:
            to = target[k] + start - source[k]
            if to < 0 or to + stop - start > out.size:
                return False
            _memcpy(out, to, data, start - base, stop - start)
    return True
