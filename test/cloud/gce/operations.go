package gce

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

type operation struct {
	id             uint64
	name, kind     string // kind is such as insert, attachDisk
	zone           string // empty is global
	target         string // from "projects/" on
	targetID       uint64
	inserted       time.Time
	running, ended time.Time
	err            *problem
	done           chan struct{}
}

// begin starts an operation. When it is over, end is called under the lock to bring about
// its effect, or with failed, to undo what was begun.
func (c *Cloud) begin(r *http.Request, kind string, target string, targetID uint64, takes time.Duration, end func(failed bool) *problem) (any, error) {
	now := c.clock.Now()
	op := &operation{
		id: c.newID(), kind: kind, zone: r.PathValue("zone"), target: target, targetID: targetID,
		inserted: now, running: now.Add(takes / 4), done: make(chan struct{}),
	}
	op.name = fmt.Sprintf("operation-%d-%x", now.UnixMilli(), op.id)
	c.operations[op.name] = op
	if id := r.URL.Query().Get("requestId"); id != "" {
		c.requests[id] = op
	}
	resource := "disks."
	switch {
	case strings.Contains(target, "/instances/"):
		resource = "instances."
	case strings.Contains(target, "/snapshots/"):
		resource = "snapshots."
	}
	failed := c.Calls.Errored(resource + kind)
	c.clock.AfterFunc(takes, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		op.err = end(failed)
		if failed && op.err == nil {
			op.err = &problem{http.StatusInternalServerError, "internalError", "Internal error. Please try again or contact Google Support."}
		}
		op.ended = c.clock.Now()
		close(op.done)
	})
	return c.operationJSON(op), nil
}

// codes are what an operation says for what an answer calls a reason.
var codes = map[string]string{
	"resourceInUseByAnotherResource": "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
	"resourceNotReady":               "RESOURCE_NOT_READY",
	"internalError":                  "INTERNAL_ERROR",
	"notFound":                       "RESOURCE_NOT_FOUND",
	"timeout":                        "TIMEOUT",
}

func (c *Cloud) operationJSON(op *operation) map[string]any {
	out := map[string]any{
		"kind": "compute#operation", "id": decimal(op.id), "name": op.name, "operationType": op.kind,
		"targetLink": host + op.target, "targetId": decimal(op.targetID), "user": "remora@" + c.cfg.Project + ".iam.gserviceaccount.com",
		"insertTime": stamp(op.inserted), "status": "PENDING", "progress": 0,
	}
	scope := "projects/" + c.cfg.Project + "/global"
	if op.zone != "" {
		scope = c.zonePath(op.zone)
		out["zone"] = host + scope
	}
	out["selfLink"] = host + scope + "/operations/" + op.name
	switch {
	case !op.ended.IsZero():
		out["status"], out["progress"] = "DONE", 100
		out["startTime"], out["endTime"] = stamp(op.running), stamp(op.ended)
	case !c.clock.Now().Before(op.running):
		out["status"], out["startTime"] = "RUNNING", stamp(op.running)
	}
	if op.err != nil {
		out["error"] = map[string]any{"errors": []any{map[string]string{"code": codes[op.err.reason], "message": op.err.message}}}
		out["httpErrorStatusCode"] = op.err.status
		out["httpErrorMessage"] = strings.ToUpper(http.StatusText(op.err.status))
	}
	return out
}

func (c *Cloud) operation(r *http.Request) (*operation, error) {
	op := c.operations[r.PathValue("name")]
	if op == nil || op.zone != r.PathValue("zone") {
		return nil, missing("projects/" + c.cfg.Project + "/operations/" + r.PathValue("name"))
	}
	return op, nil
}

func (c *Cloud) getOperation(r *http.Request) (any, error) {
	op, err := c.operation(r)
	if err != nil {
		return nil, err
	}
	return c.operationJSON(op), nil
}

// await waits until an operation is over, or the caller or the server has had enough.
func (c *Cloud) await(r *http.Request) {
	c.mu.Lock()
	op, err := c.operation(r)
	c.mu.Unlock()
	if err != nil {
		return
	}
	select {
	case <-op.done:
	case <-time.After(c.cfg.Wait):
	case <-r.Context().Done():
	}
}

func (c *Cloud) listOperations(r *http.Request) (any, error) {
	var all []*operation
	for _, op := range c.operations {
		if op.zone == r.PathValue("zone") {
			all = append(all, op)
		}
	}
	slices.SortFunc(all, func(a, b *operation) int { return strings.Compare(a.name, b.name) })
	return c.page(r, "compute#operationList", len(all), func(i int) (string, any, func(string) (string, bool)) {
		op := all[i]
		return op.name, c.operationJSON(op), func(field string) (string, bool) {
			fields := map[string]string{"name": op.name, "operationType": op.kind, "targetLink": host + op.target}
			v, ok := fields[field]
			return v, ok
		}
	})
}
