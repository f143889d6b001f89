package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// line is one line of a streamed answer: progress, something found, or the end.
type line struct {
	Progress *Progress       `json:"Progress,omitempty"`
	Change   *Change         `json:"Change,omitempty"`
	Line     *PluginLine     `json:"Line,omitempty"`
	Output   *PluginOutput   `json:"Output,omitempty"`
	Result   json.RawMessage `json:"Result,omitempty"`
	Error    *Error          `json:"Error,omitempty"`
}

// stream adds a method that answers with a line for each thing it sends, and one for the end.
func stream[Req, Resp any](s *Server, method string, call func(ctx context.Context, req Req, send func(line)) (Resp, error)) {
	s.method(method, func(w http.ResponseWriter, r *http.Request) error {
		var req Req
		if err := read(w, r, &req); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		w.Header().Set("Content-Type", "application/jsonl")
		enc := json.NewEncoder(w)
		send := func(l line) {
			_ = enc.Encode(l) // the caller is gone: nobody is left to tell
			if l.Change == nil {
				_ = http.NewResponseController(w).Flush() // likewise; changes come by the thousand
			}
		}
		end := line{}
		result, err := call(r.Context(), req, send)
		if err == nil {
			end.Result, err = json.Marshal(result)
		}
		if err != nil {
			e := toError(err)
			end = line{Error: &e}
		}
		send(end)
		return nil
	})
}

func sendProgress(send func(line)) func(Progress) {
	return func(p Progress) { send(line{Progress: &p}) }
}
