# parts.sh - sourced: runs parts of a test, adds up their totals, and counts single checks. What parts say is kept in $parts.
# shellcheck shell=bash
passed=0 failed=0 skipped=0

# part NAME COMMAND... - shows what the command says and adds its totals.
part() {
	local name=$1 begin=$SECONDS
	echo "--- $name"
	"${@:2}" >"$parts/$name.log" 2>&1 </dev/null
	count "$name" $? "$((SECONDS - begin))"
}

# count NAME STATUS SECONDS - the same for a command that has ended with STATUS; what it said is in $parts/NAME.log.
# One that says no totals, or fails, has failed at least once.
count() {
	local form='^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' p f s
	grep -vE "$form" "$parts/$1.log"
	if read -r p f s < <(grep -E "$form" "$parts/$1.log" | tail -n 1 | tr -dc '0-9 \n'); then
		(($2 == 0 || f > 0)) || f=1
		echo "$1: $p ok, $f not ok, $s left out, $3 s"
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	else
		echo "$1: no totals (exit status $2, $3 s)"
		failed=$((failed + 1))
	fi
}

# is WHAT EXPECTED ACTUAL - a check: ACTUAL is EXPECTED.
is() { check "$1" "$([[ $3 == "$2" ]] && echo yes)" "\"$3\" is not \"$2\""; }

# has WHAT EXPECTED ACTUAL - a check: EXPECTED is part of ACTUAL.
has() { check "$1" "$([[ -n $2 && $3 == *"$2"* ]] && echo yes)" "\"$2\" is not in \"$3\""; }

check() {
	if [[ $2 == yes ]]; then
		echo "ok    $1"
		passed=$((passed + 1))
	else
		echo "FAIL  $1: $3"
		failed=$((failed + 1))
	fi
}

# The last line of a test; its status tells whether something failed.
totals() {
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}
