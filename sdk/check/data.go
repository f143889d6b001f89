package check

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is what cases write into volumes.
const file = "f"

// write puts a file into a volume. A path that is not there ends the case.
func (t *T) write(dir, text string) {
	t.directory(dir)
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		t.Fatalf("write into the volume: %v", err)
	}
}

// read wants a file of a volume to hold a text.
func (t *T) read(dir, want string) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Errorf("what was written to the volume is not there: %v", err)
	} else if string(b) != want {
		t.Errorf("%s of the volume holds %.100q, and %q was written", file, b, want)
	}
}

// absent wants the file not to be in a volume.
func (t *T) absent(dir, why string) {
	switch _, err := os.Lstat(filepath.Join(dir, file)); {
	case err == nil:
		t.Errorf("%s: %s is in it", why, file)
	case !errors.Is(err, fs.ErrNotExist):
		t.Errorf("look into the volume: %v", err)
	}
}

// directory wants a mountpoint to be a directory of this host.
func (t *T) directory(path string) {
	if !filepath.IsAbs(path) {
		t.Fatalf("Mount: mountpoint %q is no absolute path; a container that is started with it has nothing mounted", path)
	}
	if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
		t.Fatalf("Mount: mountpoint %q is no directory here (%v); if the plugin runs in a container or elsewhere, say so (--away)", path, err)
	}
}

// mountTable is how many file systems are mounted at each path, one on top of the other.
type mountTable map[string]int

// mounts reads the mountTable of this process.
func mounts() mountTable {
	table := mountTable{}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return table
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			table[fields[4]]++
		}
	}
	return table
}

func (m mountTable) at(path string) int {
	return m[strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)]
}

// mountsAt returns how many file systems are mounted at path.
func mountsAt(path string) int { return mounts().at(path) }
