package unpack

import (
	"archive/tar"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxNames is how many directories an error names.
const maxNames = 10

// tops collects the directories right below a path.
type tops struct {
	below string
	there bool
	dirs  []Dir
	at    map[string]int
	loose int
	names []string // at the top of the archive, quoted, for who has named a path that is not there
}

func (t *tops) add(e entry) {
	if first, _, _ := strings.Cut(e.name, "/"); first != "." && len(t.names) < maxNames && !slices.Contains(t.names, strconv.Quote(first)) {
		t.names = append(t.names, strconv.Quote(first))
	}
	rest, in := within(e.name, t.below)
	isDir := e.Typeflag == tar.TypeDir
	t.there = t.there || in && (rest != "." || isDir)
	if !in || rest == "." {
		return
	}
	name, deeper, _ := strings.Cut(rest, "/")
	if deeper == "" && !isDir {
		t.loose++
		return
	}
	i, ok := t.at[name]
	if !ok {
		i = len(t.dirs)
		t.at[name], t.dirs = i, append(t.dirs, Dir{Name: name})
	}
	if !isDir {
		t.dirs[i].Files++
		t.dirs[i].Size += e.Size
	}
}

// within says whether name is below, or the same as, the path, and what it is from there.
func within(name, below string) (rest string, ok bool) {
	if below = path.Clean(strings.TrimLeft(below, "/")); below == "." || below == name {
		if below == name {
			return ".", true
		}
		return name, true
	}
	return strings.CutPrefix(name, below+"/")
}
