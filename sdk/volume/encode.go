package volume

import (
	"encoding/json"
	"maps"
	"sync"

	"github.com/remora-plugins/remora/sdk/internal/rpc"
)

// answer is the last answer to List, kept for as long as it is right: of a hundred
// thousand volumes it takes longer to make than to send, and many may ask at a time.
type answer struct {
	mu        sync.Mutex
	all       []Info
	elsewhere map[string]string
	encoded   rpc.Raw
}

// list returns the answer for all, a slice of [index.list]. It must not be changed.
func (a *answer) list(all []Info, elsewhere map[string]string) rpc.Raw {
	a.mu.Lock()
	defer a.mu.Unlock()
	// The index makes a new slice at each change.
	same := len(a.all) == len(all) && (len(all) == 0 || &a.all[0] == &all[0])
	if a.encoded == nil || !same || !maps.Equal(a.elsewhere, elsewhere) {
		a.all, a.elsewhere, a.encoded = all, elsewhere, encodeList(all, elsewhere)
	}
	return a.encoded
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

// encodeList encodes what an engine reads of a listing, name and mountpoint, as a
// wire.VolumeListResponse would be. elsewhere has the mountpoints that count more than
// those of all. It is written out because encoding/json, and the copies that it works
// on, take several times as long and as much memory for a hundred thousand volumes.
func encodeList(all []Info, elsewhere map[string]string) rpc.Raw {
	const frame = len(`{"Name":"","Mountpoint":""},`)
	size := len(`{"Volumes":[],"Err":""}`) + 1
	for _, info := range all {
		size += frame + len(info.Name) + max(len(info.Mountpoint), len(elsewhere[info.Name]))
	}
	b := append(make([]byte, 0, size), `{"Volumes":[`...)
	for i, info := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"Name":`...), info.Name)
		mountpoint := info.Mountpoint
		if p := elsewhere[info.Name]; p != "" {
			mountpoint = p
		}
		if mountpoint != "" {
			b = appendString(append(b, `,"Mountpoint":`...), mountpoint)
		}
		b = append(b, '}')
	}
	return append(b, "],\"Err\":\"\"}\n"...)
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
