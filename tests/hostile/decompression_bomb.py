# expect: RUNTIME_ERROR memory cpu_time
import gzip

small = gzip.compress(bytes(8 << 20)) * 200


def add(a, b):
    return len(gzip.decompress(small))
