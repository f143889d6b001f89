package volume

import (
	"bytes"
	"encoding/json"
	"maps"
	"sync"

	"github.com/remora-plugins/remora/sdk/internal/rpc"
)

// answer is the last answer to List: what an engine reads of a listing, name and
// mountpoint, encoded as a wire.VolumeListResponse would be. It is kept and mended,
// because encoding/json takes ten times as long for a hundred thousand volumes, and many
// may ask at a time.
type answer struct {
	mu        sync.Mutex
	all       []Info
	elsewhere map[string]string
	encoded   rpc.Raw
	starts    []int // of each volume, and of what comes after the last, in encoded
}

// list returns the answer for all, a slice of [index.list]. elsewhere has the mountpoints
// that count more than those of all. The answer must not be changed.
func (a *answer) list(all []Info, elsewhere map[string]string) rpc.Raw {
	a.mu.Lock()
	defer a.mu.Unlock()
	unchanged := len(a.all) == len(all) && (len(all) == 0 || &a.all[0] == &all[0]) && maps.Equal(a.elsewhere, elsewhere)
	if a.encoded == nil || !unchanged {
		a.encoded, a.starts = a.encode(all, elsewhere)
		a.all, a.elsewhere = all, elsewhere
	}
	return a.encoded
}

// encode makes the answer anew, and copies what has stayed from the one before. Names
// and mountpoints that are the same string are not looked into, which is what would take
// long: they lie all over the memory.
func (a *answer) encode(all []Info, elsewhere map[string]string) (rpc.Raw, []int) {
	const frame, begin, end = len(`{"Name":"","Mountpoint":""},`), `{"Volumes":[`, "],\"Err\":\"\"}\n"
	size := len(begin) + len(end)
	for _, info := range all {
		size += frame + len(info.Name) + len(info.Mountpoint)
	}
	b, starts := append(make([]byte, 0, size), begin...), make([]int, 0, len(all)+1)
	moved := len(elsewhere)+len(a.elsewhere) > 0
	old := 0
	for _, info := range all {
		starts = append(starts, len(b))
		for old < len(a.all) && a.all[old].Name != info.Name && a.all[old].Name < info.Name {
			old++
		}
		if old < len(a.all) && a.all[old].Name == info.Name && a.all[old].Mountpoint == info.Mountpoint &&
			(!moved || a.elsewhere[info.Name] == elsewhere[info.Name]) {
			b = append(append(b, a.encoded[a.starts[old]:a.starts[old+1]-1]...), ',')
			continue
		}
		if p := elsewhere[info.Name]; p != "" {
			info.Mountpoint = p
		}
		b = appendVolume(b, info)
	}
	starts = append(starts, len(b))
	return append(bytes.TrimSuffix(b, []byte{','}), end...), starts
}

// elsewhere returns where mounted volumes lie that the driver did not say of itself.
func (h *Handler) elsewhere() map[string]string {
	points := map[string]string{}
	for _, name := range h.mounts.names() {
		p := h.mounts.get(name).Mountpoint
		if info, _ := h.index.get(name); p != "" && p != info.Mountpoint {
			points[name] = p
		}
	}
	return points
}

// appendVolume appends a volume and a comma.
func appendVolume(b []byte, info Info) []byte {
	b = appendString(append(b, `{"Name":`...), info.Name)
	if info.Mountpoint != "" {
		b = appendString(append(b, `,"Mountpoint":`...), info.Mountpoint)
	}
	return append(b, "},"...)
}

// appendString appends a JSON string as encoding/json writes it.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string never fails
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
