# entry: sys.stdin
# expect: RUNTIME_ERROR output_limit
while True:
    print("3" * 10000)
