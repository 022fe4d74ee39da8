# A benchmark of one's own is a file of lines: task_id, prompt, entry_point, and tests as text or as a list.
head -1 problems.jsonl
# Two models, or samples of them, on one board: intervals, paired differences, who cannot be told apart.
rrtf evaluate problems.jsonl student=student.jsonl teacher=teacher.jsonl --out board
# board/ has the table as csv, md, tex and jsonl, the verdicts and the answers.
