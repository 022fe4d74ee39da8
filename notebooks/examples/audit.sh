# Do training rows hold tasks of a benchmark? Here of a file; names (humaneval,mbpp) are fetched once.
rrtf audit rows.jsonl --benchmarks problems.jsonl --execute --clean clean.jsonl --report audit.html
# The first row writes the first task in other words: only running it on the task's tests finds that.
