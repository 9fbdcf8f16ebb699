# The tables and the verdict of a matrix run:
#   awk -v mode=text|markdown|expected -v full=0|1 -f report.awk EXPECTED RESULTS
#
# EXPECTED: what worked in the run that docs/KERNELS.md shows: label, tool, column. What worked must still work.
# RESULTS: label and leg, then what vm/guest wrote, or `boot ok|hang|died|setup SECONDS TRIES`, or `unserved`.
# full: the whole set of kernels ran, so a rung that ran on none of them is dead code.
# In mode text the exit code is 1 if something that should work did not.
BEGIN {
  FS = "\t"
  nconditions = split("all vm no-tracefs no-btf btf-file cpu-offline integrity confidentiality one-cpu", conditions, " ")
  for (i = 1; i <= nconditions; i++) is_condition[conditions[i]] = 1
}
FILENAME == ARGV[1] { if (NF == 3) expected[++nexpected] = $0; next }
{ key = $1 FS $4 }
!($1 in known_label) { known_label[$1]; labels[++nlabels] = $1 }
$3 == "unserved" { unserved[$1] = 1 }
$3 == "kernel" && $2 == "main" {
  version[$1] = $5
  sub(/.*Debian /, "", version[$1])
  sub(/-.*/, "", version[$1])
  package[$1] = $4
  cpus[$1] = count($6) " of " count($7)
}
$3 == "boot" {
  tried[$1 FS $2] = 1
  word["hang"] = "hung, twice"; word["died"] = "died"; word["setup"] = "could not be set up"
  if ($4 != "ok") problem($1 " (" $2 "): the guest " word[$4])
  else if ($6 > 1) notes[++nnotes] = $1 " (" $2 "): the guest hung once and was started again"
}
$3 == "kmsg" { problem($1 " (" $2 "): the kernel complained: " $4) }
$3 == "check" {
  add_tool($4)
  checked[$4]
  if ($5 == 3 || $5 == 4) notes[++nnotes] = $1 ": " $4 " does not run here (--check: exit code " $5 ")"
  else if ($5 != 0) problem($1 ": " $4 " --check: exit code " $5)
}
$3 == "again" { notes[++nnotes] = $1 ": " $4 ": " $5 ": " $6 ": run again, as the kernel had skipped programs" }
$3 == "way" && $6 == "none" { unseen[key] = listed(unseen[key], "no " name_of($5)) }
$3 == "way" && $6 != "none" {
  add_column($4, $6)
  if ($7 == "chosen") chosen[key] = once(chosen[key], $6)
  else if ($7 ~ /^refused/ && !((key FS $6) in why)) why[key FS $6] = substr($7, 10)
}
$3 == "blind" { unseen[key] = listed(unseen[key], $6) }
$3 == "run" {
  add_tool($4)
  add_column($4, $5)
  cell = key FS $5
  condition_seen[$1 FS $5]
  if ($6 == "FAIL") {
    result[cell] = "FAIL"
    problem($1 ": " $4 ": " $5 ": " ($8 > 0 ? $8 " failed, " : "") $11)
  } else if ($6 == "refused") {
    result[cell] = "refused"
  } else if ($6 == "skip") {
    result[cell] = "skipped"
  } else {
    result[cell] = $7 " ok" ($9 ? ", " $9 " skipped" : "")
  }
  if ($6 == "ok" || $6 == "refused") {
    worked[cell] = 1
    ran[$4] = ran[$4 FS $5] = 1
  }
}

function problem(text) { problems[++nproblems] = text }
function listed(list, item) { return list == "" ? item : list "; " item }
function once(list, item) { return index(" " list " ", " " item " ") ? list : list == "" ? item : list " " item }
function name_of(hook) { sub(/ \(optional\)$/, "", hook); return hook }
function count(range,    parts, n, i, ends, sum) { # 0-1,4 is 3
  n = split(range, parts, ",")
  for (i = 1; i <= n; i++) sum += split(parts[i], ends, "-") > 1 ? ends[2] - ends[1] + 1 : 1
  return sum
}
function add_tool(name) { if (!(name in known_tool)) { known_tool[name]; tools[++ntools] = name } }
function add_column(tool, name) {
  used[tool FS name]
  if (!(name in known_column)) { known_column[name]; if (!(name in is_condition)) columns[++ncolumns] = name }
}
function show(label, tool, column,    cell, text) {
  cell = label FS tool FS column
  if (unserved[label]) return "not served"
  text = cell in result ? result[cell] : cell in why ? "no" : "-"
  return index(" " chosen[label FS tool] " ", " " column " ") ? "*" text : text
}

function judge(    i, n, part) {
  for (i = 1; i <= nexpected; i++) {
    split(expected[i], part, FS)
    if (!(part[2] in known_tool) || unserved[part[1]] || worked[expected[i]] || result[expected[i]] == "FAIL") continue
    # A short run leaves conditions out.
    if (!full && part[3] in is_condition && !((part[1] FS part[3]) in condition_seen)) continue
    if (!((part[1] FS (part[3] == "one-cpu" ? "one-cpu" : "main")) in tried)) continue
    problem(part[1] ": " part[2] ": " part[3] " worked before, now not" (expected[i] in why ? ": " why[expected[i]] : ""))
  }
  if (!full) return
  for (i = 1; i <= ntools; i++) if (!ran[tools[i]]) problem(tools[i] " ran on no kernel")
  for (n in used) {
    split(n, part, FS)
    if (!ran[n]) problem(part[1] ": " part[2] " ran on no kernel")
  }
}

function text_table(    t, l, c, row, r, wide, cells, n, line) {
  n = split("KERNEL VERSION CPUS TOOL", cells, " ")
  for (c = 1; c <= ncolumns; c++) cells[++n] = columns[c]
  for (c = 1; c <= n; c++) { row[0 FS c] = cells[c]; wide[c] = length(cells[c]) }
  for (l = 1; l <= nlabels; l++) for (t = 1; t <= ntools; t++) {
    r++
    row[r FS 1] = labels[l]; row[r FS 2] = version[labels[l]]; row[r FS 3] = cpus[labels[l]]; row[r FS 4] = tools[t]
    for (c = 1; c <= ncolumns; c++) row[r FS (c + 4)] = show(labels[l], tools[t], columns[c])
    for (c = 1; c <= n; c++) if (length(row[r FS c]) > wide[c]) wide[c] = length(row[r FS c])
  }
  for (l = 0; l <= r; l++) {
    line = ""
    for (c = 1; c <= n; c++) line = line sprintf("%-" wide[c] "s  ", row[l FS c])
    sub(/ +$/, "", line)
    print line
  }
  if (ntools) print "(* what the tool chooses by itself; no: refused by --check; refused: by name, as it should be)"
}

# One table: rows are kernels. A tool has its columns; the test files that are about none are columns themselves.
function kernel_rows(head, names, n, tool,    l, c, line, rule) {
  line = "| kernel |" head
  rule = "|---|" (head == "" ? "" : "---|")
  for (c = 1; c <= n; c++) { line = line " " names[c] " |"; rule = rule "---|" }
  print line (tool == "" ? "" : " does not see |") "\n" rule (tool == "" ? "" : "---|")
  for (l = 1; l <= nlabels; l++) {
    line = "| " labels[l] " |" (tool == "" ? "" : " " chosen[labels[l] FS tool] " |")
    for (c = 1; c <= n; c++) line = line " " (tool == "" ? show(labels[l], names[c], "all") : show(labels[l], tool, names[c])) " |"
    gsub(/\*/, "", line)
    print line (tool == "" ? "" : " " unseen[labels[l] FS tool] " |")
  }
}

function markdown(    t, l, c, line, n, names, others, nothers) {
  print "| kernel | version | Debian's package | CPUs online |\n|---|---|---|---|"
  for (l = 1; l <= nlabels; l++) {
    line = unserved[labels[l]] ? "not served by the mirror | |" : version[labels[l]] " | linux-image-" package[labels[l]] " | " cpus[labels[l]]
    print "| " labels[l] " | " line " |"
  }
  for (t = 1; t <= ntools; t++) {
    if (!(tools[t] in checked)) { others[++nothers] = tools[t]; continue }
    n = 0
    for (c = 1; c <= ncolumns; c++) if ((tools[t] FS columns[c]) in used) names[++n] = columns[c]
    print "\n### " tools[t] "\n"
    kernel_rows(" chosen |", names, n, tools[t])
    line = "\n"
    for (l = 1; l <= nlabels; l++) for (c = 1; c <= n; c++)
      if (show(labels[l], tools[t], names[c]) == "no") {
        print line "- " names[c] " on " labels[l] ": " why[labels[l] FS tools[t] FS names[c]]
        line = ""
      }
  }
  if (nothers) { print "\n### Tests of all tools\n"; kernel_rows("", others, nothers, "") }
}

END {
  for (c = 1; c <= nconditions; c++) if (conditions[c] in known_column) columns[++ncolumns] = conditions[c]
  if (mode == "expected") { for (cell in worked) if (worked[cell]) print cell; exit }
  if (mode == "markdown") { markdown(); exit }
  text_table()
  judge()
  for (l = 1; l <= nlabels; l++) if (unserved[labels[l]]) print "\nNOT RUN: " labels[l] ": the mirror no longer serves such a kernel, and none is cached"
  for (l = 1; l <= nnotes; l++) print "\nNOTE: " notes[l]
  if (nproblems) print "\nFAILED:"
  for (l = 1; l <= nproblems; l++) print "  " problems[l]
  exit nproblems > 0
}
