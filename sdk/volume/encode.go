package volume

import (
	"encoding/json"

	"github.com/remora-plugins/remora/sdk/internal/rpc"
)

// encodeList encodes what an engine reads of a listing, name and mountpoint, as a
// wire.VolumeListResponse would be. mounted has the mountpoints that count more than
// those of all. It is written out because encoding/json, and the copies that it works
// on, take several times as long and as much memory for a hundred thousand volumes.
func encodeList(all []Info, mounted map[string]string) rpc.Raw {
	const frame = len(`{"Name":"","Mountpoint":""},`)
	size := len(`{"Volumes":[],"Err":""}`) + 1
	for _, info := range all {
		size += frame + len(info.Name) + max(len(info.Mountpoint), len(mounted[info.Name]))
	}
	b := append(make([]byte, 0, size), `{"Volumes":[`...)
	for i, info := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"Name":`...), info.Name)
		mountpoint := info.Mountpoint
		if p := mounted[info.Name]; p != "" {
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
