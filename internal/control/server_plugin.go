package control

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// handlePlugins adds the methods about managed plugins.
func handlePlugins(s *Server, p Plugins) {
	handle(s, MethodPluginList, func(ctx context.Context, _ struct{}) (PluginList, error) {
		l, err := p.List(ctx)
		if l.Plugins == nil {
			l.Plugins = []Plugin{}
		}
		return l, err
	})
	handle(s, MethodPluginInspect, p.Inspect)
	handle(s, MethodPluginPrivileges, func(ctx context.Context, r PluginSource) (PluginPrivileges, error) {
		a, err := p.Privileges(ctx, r)
		if a.Privileges == nil {
			a.Privileges = plugin.Privileges{}
		}
		return a, err
	})
	handleLong(s, MethodPluginInstall, p.Install)
	handleLong(s, MethodPluginUpgrade, p.Upgrade)
	handleLong(s, MethodPluginPush, p.Push)
	handle(s, MethodPluginEnable, nothing(p.Enable))
	handle(s, MethodPluginDisable, nothing(p.Disable))
	handle(s, MethodPluginSet, nothing(p.Set))
	handle(s, MethodPluginRemove, nothing(p.Remove))
	handle(s, MethodPluginTop, func(ctx context.Context, r PluginRequest) (PluginTop, error) {
		t, err := p.Top(ctx, r)
		if t.Processes == nil {
			t.Processes = [][]string{}
		}
		return t, err
	})
	stream(s, MethodPluginLogs, func(ctx context.Context, r PluginLogsRequest, send func(line)) (struct{}, error) {
		return struct{}{}, p.Logs(ctx, r, func(l PluginLine) { send(line{Line: &l}) })
	})
	createPlugin(s, p)
	execInPlugin(s, p)
}

// createPlugin adds the method whose request is a tar, with the name in the query.
func createPlugin(s *Server, p Plugins) {
	s.method(MethodPluginCreate, func(w http.ResponseWriter, r *http.Request) error {
		made, err := p.Create(r.Context(), r.URL.Query().Get("name"), r.Body)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(made) // the caller is gone: nobody is left to tell
		return nil
	})
}

// execInPlugin adds the method whose request is what the command reads, with all else in the query: it is answered
// while it is still being read.
func execInPlugin(s *Server, p Plugins) {
	s.method(MethodPluginExec, func(w http.ResponseWriter, r *http.Request) error {
		var req PluginExecRequest
		if err := json.Unmarshal([]byte(r.URL.Query().Get("request")), &req); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s: request is not the JSON of this method: %w", MethodPluginExec, err)
		}
		flush := http.NewResponseController(w)
		if err := flush.EnableFullDuplex(); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/jsonl")
		enc := json.NewEncoder(w)
		send := func(l line) {
			_ = enc.Encode(l) // the caller is gone: nobody is left to tell
			_ = flush.Flush() // likewise
		}
		_ = flush.Flush() // or the caller would not begin to send
		exit, err := p.Exec(r.Context(), req, r.Body, func(o PluginOutput) { send(line{Output: &o}) })
		end := line{}
		if err == nil {
			end.Result, err = json.Marshal(exit)
		}
		if err != nil {
			e := toError(err)
			end = line{Error: &e}
		}
		send(end)
		return nil
	})
}
