# expect: RUNTIME_ERROR ValueError refused
import resource


def add(a, b):
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return a + b
