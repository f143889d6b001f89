package archtest

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

var readmeSections = []string{"Name", "Description", "Options", "Examples", "Limits", "Errors"}

func driverReadme(t *tree) (found []finding) {
	dirs := map[string]bool{}
	for _, src := range t.code {
		if dir, ok := driverDir(src.dir); ok {
			dirs[dir] = true
		}
	}
	for _, dir := range sortedKeys(dirs) {
		readme := path.Join(dir, "README.md")
		text, err := fs.ReadFile(t.fsys, readme)
		if err != nil {
			found = append(found, finding{dir, 0, "no README.md"})
			continue
		}
		found = append(found, sections(readme, string(text), readmeSections)...)
	}
	return found
}

// sections wants each of want as a heading "## …", in this order. There may be more
// headings between them.
func sections(file, text string, want []string) (found []finding) {
	rest := headings(text)
	for _, name := range want {
		i := slices.Index(rest, name)
		if i < 0 {
			found = append(found, finding{file, 0, fmt.Sprintf("no section %q in its place (%s)", name, strings.Join(want, ", "))})
			continue
		}
		rest = rest[i+1:]
	}
	return found
}

func headings(text string) (out []string) {
	for _, line := range prose(text) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			out = append(out, strings.TrimSpace(h))
		}
	}
	return out
}

// prose yields the lines of a markdown text with their numbers, code blocks left out.
func prose(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		fenced, n := false, 0
		for line := range strings.Lines(text) {
			n++
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
				continue
			}
			if !fenced && !yield(n, strings.TrimRight(line, "\n")) {
				return
			}
		}
	}
}

var (
	inlineCode = regexp.MustCompile("`[^`]*`")
	// inlineLink matches [text](target) and [text](target "title"), images too.
	inlineLink = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)`)
	// otherLink matches the definition of a reference, and src and href in HTML.
	otherLink = regexp.MustCompile(`^\s*\[[^\]]+\]:\s*(\S+)|(?:src|href)="([^"]+)"`)
	scheme    = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:`)
)

func links(t *tree) (found []finding) {
	for _, file := range t.files {
		if path.Ext(file) != ".md" {
			continue
		}
		text, err := fs.ReadFile(t.fsys, file)
		if err != nil {
			found = append(found, finding{file, 0, err.Error()})
			continue
		}
		for n, line := range prose(string(text)) {
			for _, target := range targets(line) {
				if !t.linked(file, target) {
					found = append(found, finding{file, n, "link to " + target + ", which is not there"})
				}
			}
		}
	}
	return found
}

func targets(line string) (out []string) {
	line = inlineCode.ReplaceAllString(line, "")
	for _, m := range inlineLink.FindAllStringSubmatch(line, -1) {
		out = append(out, m[1])
	}
	for _, m := range otherLink.FindAllStringSubmatch(line, -1) {
		out = append(out, m[1]+m[2])
	}
	return out
}

// linked reports whether the target of a link in file is there, or is none of ours.
func (t *tree) linked(file, target string) bool {
	if scheme.MatchString(target) || strings.HasPrefix(target, "#") {
		return true
	}
	target, _, _ = strings.Cut(target, "#")
	p := path.Join(path.Dir(file), target)
	if rooted, ok := strings.CutPrefix(target, "/"); ok {
		p = path.Clean(rooted)
	}
	_, err := fs.Stat(t.fsys, p)
	return err == nil // a path out of the tree is no valid path of an fs.FS
}

var changelogLine = regexp.MustCompile(`^(Added|Changed|Fixed|Removed|Security): [A-Z].*[^.]$`)

func changelog(t *tree) (found []finding) {
	for _, file := range t.files {
		if path.Dir(file) != "changelog/unreleased" || slices.Contains([]string{"README.md", "TEMPLATE.md"}, path.Base(file)) {
			continue
		}
		text, err := fs.ReadFile(t.fsys, file)
		if err != nil {
			found = append(found, finding{file, 0, err.Error()})
			continue
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if !changelogLine.MatchString(first) || path.Ext(file) != ".md" {
			found = append(found, finding{file, 1, `want "Added|Changed|Fixed|Removed|Security: Imperative sentence" without a full stop, in a file .md`})
		}
	}
	return found
}

var adrName = regexp.MustCompile(`^[0-9]{4}-[a-z0-9-]+\.md$`)

const maxADR = 60

func adr(t *tree) (found []finding) {
	numbers := map[string]string{}
	for _, file := range t.files {
		if path.Dir(file) != "docs/adr" || path.Base(file) == "README.md" {
			continue
		}
		if !adrName.MatchString(path.Base(file)) {
			found = append(found, finding{file, 0, "want a name such as 0001-one-module.md"})
			continue
		}
		number := path.Base(file)[:4]
		if other := numbers[number]; other != "" {
			found = append(found, finding{file, 0, "has the number of " + other})
		}
		numbers[number] = file
		text, err := fs.ReadFile(t.fsys, file)
		if err != nil {
			found = append(found, finding{file, 0, err.Error()})
			continue
		}
		if n := strings.Count(string(text), "\n"); n > maxADR {
			found = append(found, finding{file, 0, fmt.Sprintf("%d lines, of at most %d", n, maxADR)})
		}
		found = append(found, sections(file, string(text), []string{"Context", "Decision", "What we gave up", "How to undo"})...)
	}
	return found
}
