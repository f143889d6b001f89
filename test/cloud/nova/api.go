package nova

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// object is a JSON object.
type object map[string]any

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body)
	}
}

// faults are what Nova calls its refusals.
var faults = map[int]string{400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest", 500: "computeFault"}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, object{faults[status]: object{"code": status, "message": fmt.Sprintf(format, args...)}})
}

// ServeHTTP answers a request, with the path below /v2.1.
func (n *Nova) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) <= 1 { // anybody may ask what versions there are
		version := object{"id": "v2.1", "status": "CURRENT", "version": "2.93", "min_version": "2.1", "links": []object{{"rel": "self", "href": n.http.URL + "/v2.1/"}}}
		if parts[0] == "" {
			answer(w, http.StatusOK, object{"versions": []object{version}})
		} else {
			answer(w, http.StatusOK, object{"version": version})
		}
		return
	}
	token := r.Header.Get("X-Auth-Token")
	project, ok := n.projectOf(r.Context(), token)
	if !ok {
		refuse(w, http.StatusUnauthorized, "The request you have made requires authentication.")
		return
	}
	parts = parts[1:]
	n.mu.Lock()
	defer n.mu.Unlock()
	if parts[0] == "os-server-external-events" && r.Method == http.MethodPost {
		n.events(w, r)
		return
	}
	if parts[0] != "servers" || len(parts) < 2 {
		refuse(w, http.StatusNotFound, "The resource could not be found.")
		return
	}
	s := n.servers[parts[1]]
	if s == nil || s.Project != project || s.status == "DELETED" {
		refuse(w, http.StatusNotFound, "Instance %s could not be found.", parts[1])
		return
	}
	what := r.Method + " " + strings.Join(append(parts[:1:1], parts[2:min(3, len(parts))]...), "/")
	n.seen[what]++
	switch what {
	case "GET servers":
		answer(w, http.StatusOK, object{"server": object{"id": s.ID, "status": s.status, "tenant_id": s.Project, "OS-EXT-STS:task_state": null(s.task), "OS-EXT-STS:vm_state": strings.ToLower(s.status)}})
	case "GET servers/os-volume_attachments":
		s.show(w, parts[3:])
	case "POST servers/os-volume_attachments":
		s.attach(w, r, token)
	case "DELETE servers/os-volume_attachments":
		s.detach(w, r.Context(), parts[3:], token)
	default:
		refuse(w, http.StatusNotFound, "The resource could not be found.")
	}
}

func null(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func (s *Server) attachment(id string) object {
	return object{"id": id, "serverId": s.ID, "volumeId": id, "device": "/dev/vdb", "attachment_id": s.volumes[id].attachment}
}

// show answers which volumes a server has.
func (s *Server) show(w http.ResponseWriter, id []string) {
	if len(id) > 0 {
		if s.volumes[id[0]] == nil {
			refuse(w, http.StatusNotFound, "volume_id not found: %s", id[0])
			return
		}
		answer(w, http.StatusOK, object{"volumeAttachment": s.attachment(id[0])})
		return
	}
	all := []object{}
	for id := range s.volumes {
		all = append(all, s.attachment(id))
	}
	answer(w, http.StatusOK, object{"volumeAttachments": all})
}

// may tells whether a server can have volumes attached and detached as it is.
func (s *Server) may(w http.ResponseWriter, verb string) bool {
	if s.task == "" && (s.status == "ACTIVE" || s.status == "SHUTOFF" || s.status == "PAUSED" || s.status == "SUSPENDED") {
		return true
	}
	state, what := "vm_state", strings.ToLower(s.status)
	if s.task != "" {
		state, what = "task_state", s.task
	}
	refuse(w, http.StatusConflict, "Cannot '%s' instance %s while it is in %s %s", verb, s.ID, state, what)
	return false
}

// attach reserves the volume at Cinder, and answers before it is connected.
func (s *Server) attach(w http.ResponseWriter, r *http.Request, token string) {
	var in struct {
		VolumeAttachment struct {
			VolumeID string `json:"volumeId"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.VolumeAttachment.VolumeID == "" {
		refuse(w, http.StatusBadRequest, "Invalid input for field/attribute volumeAttachment.")
		return
	}
	id := in.VolumeAttachment.VolumeID
	if !s.may(w, "attach_volume") {
		return
	}
	if s.volumes[id] != nil {
		refuse(w, http.StatusBadRequest, "Invalid volume: volume %s already attached", id)
		return
	}
	c := s.nova.cinder(s.Project, token)
	status, text := c.call(r.Context(), http.MethodGet, "/volumes/"+id, nil, nil)
	if status == http.StatusNotFound {
		refuse(w, http.StatusNotFound, "Volume %s could not be found.", id)
		return
	}
	var made struct{ Attachment struct{ ID string } }
	if status == http.StatusOK {
		status, text = c.call(r.Context(), http.MethodPost, "/attachments", object{"attachment": object{"volume_uuid": id, "instance_uuid": s.ID}}, &made)
	}
	switch {
	case status == http.StatusBadRequest:
		refuse(w, http.StatusBadRequest, "Invalid input received: %s (HTTP 400)", text)
		return
	case status/100 != 2:
		refuse(w, http.StatusInternalServerError, "Unexpected API Error: cinder answers %d %s", status, text)
		return
	}
	v := &volume{attachment: made.Attachment.ID}
	s.volumes[id] = v
	answer(w, http.StatusOK, object{"volumeAttachment": s.attachment(id)})
	s.nova.later(func(ctx context.Context) { s.connect(ctx, c, id, v) }) //nolint:contextcheck // it goes on after the answer
}

// connect is what the compute host does. The caller has the lock.
func (s *Server) connect(ctx context.Context, c *cinder, id string, v *volume) {
	if s.volumes[id] != v || v.leaving {
		return
	}
	connector := object{"host": s.nova.host(s), "ip": "127.0.0.1", "initiator": "iqn.2026-01.test:" + s.ID, "platform": "x86_64", "os_type": "linux2", "multipath": false, "mountpoint": "/dev/vdb"}
	var got struct {
		Attachment struct {
			Connection connection `json:"connection_info"`
		}
	}
	status, text := c.call(ctx, http.MethodPut, "/attachments/"+v.attachment, object{"attachment": object{"connector": connector}}, &got)
	var err error
	if status/100 != 2 {
		err = fmt.Errorf("cinder answers %d %s", status, text)
	} else {
		err = s.plug(ctx, id, v, got.Attachment.Connection)
	}
	if err == nil {
		if status, _ = c.call(ctx, http.MethodPost, "/attachments/"+v.attachment+"/action", object{"os-complete": nil}, nil); status/100 == 2 {
			return
		}
	}
	_ = s.unplug(v)
	c.call(ctx, http.MethodDelete, "/attachments/"+v.attachment, nil, nil)
	delete(s.volumes, id)
}

func (n *Nova) host(s *Server) string { return "compute-" + s.ID[:8] }

// detach answers before the disk is gone.
func (s *Server) detach(w http.ResponseWriter, ctx context.Context, parts []string, token string) { //nolint:revive // w first, as a handler has it
	if len(parts) == 0 {
		refuse(w, http.StatusNotFound, "The resource could not be found.")
		return
	}
	id := parts[0]
	if !s.may(w, "detach_volume") {
		return
	}
	v := s.volumes[id]
	if v == nil {
		refuse(w, http.StatusNotFound, "volume_id not found: %s", id)
		return
	}
	c := s.nova.cinder(s.Project, token)
	status, text := c.call(ctx, http.MethodPost, "/volumes/"+id+"/action", object{"os-begin_detaching": nil}, nil)
	if status/100 != 2 {
		refuse(w, http.StatusBadRequest, "Invalid volume: %s (HTTP %d)", text, status)
		return
	}
	v.leaving = true
	answer(w, http.StatusAccepted, nil)
	s.nova.later(func(ctx context.Context) { //nolint:contextcheck // it goes on after the answer
		if err := s.unplug(v); err != nil {
			c.call(ctx, http.MethodPost, "/volumes/"+id+"/action", object{"os-roll_detaching": nil}, nil)
			v.leaving = false
			return
		}
		c.call(ctx, http.MethodDelete, "/attachments/"+v.attachment, nil, nil)
		delete(s.volumes, id)
	})
}

// later does something after the delay, with the lock.
func (n *Nova) later(do func(ctx context.Context)) {
	n.busy.Add(1)
	time.AfterFunc(n.Delay, func() {
		defer n.busy.Done()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		n.mu.Lock()
		defer n.mu.Unlock()
		do(ctx)
	})
}

// events are what Cinder tells. The caller has the lock.
func (n *Nova) events(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Events []struct {
			Name   string `json:"name"`
			Server string `json:"server_uuid"`
			Tag    string `json:"tag"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "Malformed request body")
		return
	}
	all := []object{}
	for _, e := range in.Events {
		n.seen["event "+e.Name]++
		code, status := 404, "failed"
		if s := n.servers[e.Server]; s != nil && s.volumes[e.Tag] != nil && e.Name == "volume-extended" {
			code, status = 200, "completed"
			if err := s.Machine.Grow(s.volumes[e.Tag].disk); err != nil {
				code, status = 422, "failed"
			}
		}
		all = append(all, object{"name": e.Name, "server_uuid": e.Server, "tag": e.Tag, "status": status, "code": code})
	}
	answer(w, http.StatusOK, object{"events": all})
}
