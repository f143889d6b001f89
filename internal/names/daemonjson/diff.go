package daemonjson

import (
	"fmt"
	"slices"
	"strings"
)

// context is how many lines that stay are shown around those that change.
const context = 3

// edit is a line of a diff: ' ' stays, '-' goes, '+' comes.
type edit struct {
	kind byte
	line string
}

// diff compares two texts, in the form of diff -u.
func diff(path string, before, after []byte) string {
	edits := compare(lines(before), lines(after))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", path, path)
	for from := 0; from < len(edits); {
		if edits[from].kind == ' ' {
			from++
			continue
		}
		to, quiet := from, 0 // a hunk ends where more than two contexts stay
		for i := from; i < len(edits) && quiet <= 2*context; i++ {
			if edits[i].kind == ' ' {
				quiet++
			} else {
				to, quiet = i+1, 0
			}
		}
		hunk(&b, edits, max(0, from-context), min(len(edits), to+context))
		from = to + context
	}
	return b.String()
}

func hunk(b *strings.Builder, edits []edit, from, to int) {
	var at, n [2]int // in the text before, and after
	for i, e := range edits[:to] {
		if e.kind != '+' {
			at[0]++
			if i >= from {
				n[0]++
			}
		}
		if e.kind != '-' {
			at[1]++
			if i >= from {
				n[1]++
			}
		}
	}
	for i := range at {
		if at[i] -= n[i]; n[i] > 0 {
			at[i]++
		}
	}
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", at[0], n[0], at[1], n[1])
	for _, e := range edits[from:to] {
		fmt.Fprintf(b, "%c%s\n", e.kind, e.line)
	}
}

// lines takes a text apart. A last line without an end says so, as in diff(1).
func lines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	all := strings.Split(string(text), "\n")
	if last := len(all) - 1; all[last] == "" {
		return all[:last]
	}
	all[len(all)-1] += "\n\\ No newline at end of file"
	return all
}

// maxLines bounds the lines that are compared with each other; beyond that all go and all come.
const maxLines = 2000

// compare finds the longest common part of two lists of lines.
func compare(a, b []string) (edits []edit) {
	if len(a) > maxLines || len(b) > maxLines {
		for _, l := range a {
			edits = append(edits, edit{'-', l})
		}
		for _, l := range b {
			edits = append(edits, edit{'+', l})
		}
		return edits
	}
	same := make([][]int, len(a)+1) // how many are common from here on
	for i := range same {
		same[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if x == y {
				same[i][j] = same[i+1][j+1] + 1
			} else {
				same[i][j] = max(same[i+1][j], same[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			edits = append(edits, edit{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || same[i+1][j] >= same[i][j+1]):
			edits = append(edits, edit{'-', a[i]})
			i++
		default:
			edits = append(edits, edit{'+', b[j]})
			j++
		}
	}
	return edits
}
