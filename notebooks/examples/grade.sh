# Grade answers: one verdict each, pass@k with its interval, and what went wrong first.
rrtf grade problems.jsonl student.jsonl
# Every verdict stands in student.jsonl_results.jsonl; the page shows the answers (open it offline).
rrtf grade problems.jsonl student.jsonl --report answers.html --table rates.csv
