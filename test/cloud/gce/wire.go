package gce

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// The answers, as cloud.google.com/compute/docs/reference/rest/v1 has them. They are no
// types of the client's, so that a client's mistake about a field is seen.

type diskJSON struct {
	Kind                   string            `json:"kind"`
	ID                     uint64            `json:"id,string"`
	CreationTimestamp      string            `json:"creationTimestamp"`
	Name                   string            `json:"name"`
	Description            string            `json:"description,omitempty"`
	SizeGB                 int64             `json:"sizeGb,string"`
	Zone                   string            `json:"zone"`
	Status                 string            `json:"status"`
	SourceSnapshot         string            `json:"sourceSnapshot,omitempty"`
	SourceSnapshotID       string            `json:"sourceSnapshotId,omitempty"`
	SourceDisk             string            `json:"sourceDisk,omitempty"`
	SourceDiskID           string            `json:"sourceDiskId,omitempty"`
	Type                   string            `json:"type"`
	Labels                 map[string]string `json:"labels,omitempty"`
	LabelFingerprint       string            `json:"labelFingerprint"`
	Users                  []string          `json:"users,omitempty"`
	LastAttachTimestamp    string            `json:"lastAttachTimestamp,omitempty"`
	LastDetachTimestamp    string            `json:"lastDetachTimestamp,omitempty"`
	DiskEncryptionKey      *keyJSON          `json:"diskEncryptionKey,omitempty"`
	ProvisionedIops        int64             `json:"provisionedIops,string,omitempty"`
	ProvisionedThroughput  int64             `json:"provisionedThroughput,string,omitempty"`
	PhysicalBlockSizeBytes int64             `json:"physicalBlockSizeBytes,string"`
	SelfLink               string            `json:"selfLink"`
}

type keyJSON struct {
	KmsKeyName string `json:"kmsKeyName,omitempty"`
	RawKey     string `json:"rawKey,omitempty"`
}

type snapshotJSON struct {
	Kind                  string            `json:"kind"`
	ID                    uint64            `json:"id,string"`
	CreationTimestamp     string            `json:"creationTimestamp"`
	Name                  string            `json:"name"`
	Description           string            `json:"description,omitempty"`
	Status                string            `json:"status"`
	SourceDisk            string            `json:"sourceDisk"`
	SourceDiskID          string            `json:"sourceDiskId"`
	DiskSizeGB            int64             `json:"diskSizeGb,string"`
	StorageBytes          int64             `json:"storageBytes,string,omitempty"`
	StorageBytesStatus    string            `json:"storageBytesStatus,omitempty"`
	StorageLocations      []string          `json:"storageLocations"`
	Labels                map[string]string `json:"labels,omitempty"`
	LabelFingerprint      string            `json:"labelFingerprint"`
	SnapshotEncryptionKey *keyJSON          `json:"snapshotEncryptionKey,omitempty"`
	SelfLink              string            `json:"selfLink"`
}

type attachedJSON struct {
	Kind       string `json:"kind"`
	Type       string `json:"type"`
	Mode       string `json:"mode"`
	Source     string `json:"source"`
	DeviceName string `json:"deviceName"`
	Index      int    `json:"index"`
	Boot       bool   `json:"boot"`
	AutoDelete bool   `json:"autoDelete"`
	Interface  string `json:"interface"`
	DiskSizeGB int64  `json:"diskSizeGb,string"`
}

// problem is an answer that says no.
type problem struct {
	status          int
	reason, message string
}

func (p *problem) Error() string { return p.message }

func notFound(message string) *problem { return &problem{http.StatusNotFound, "notFound", message} }

func invalid(field, value, why string) *problem {
	return &problem{http.StatusBadRequest, "invalid", fmt.Sprintf("Invalid value for field '%s': '%s'. %s", field, value, why)}
}

func rateLimitExceeded() *problem {
	return &problem{
		http.StatusForbidden, "rateLimitExceeded",
		"Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute.googleapis.com'.",
	}
}

func notReady(resource string) *problem {
	return &problem{http.StatusBadRequest, "resourceNotReady", "The resource '" + resource + "' is not ready"}
}

func exists(resource string) *problem {
	return &problem{http.StatusConflict, "alreadyExists", "The resource '" + resource + "' already exists"}
}

func missing(resource string) *problem {
	return notFound("The resource '" + resource + "' was not found")
}

func inUse(resource, by string) *problem {
	return &problem{
		http.StatusBadRequest, "resourceInUseByAnotherResource",
		"The disk resource '" + resource + "' is already being used by '" + by + "'",
	}
}

func writeError(w http.ResponseWriter, err error) {
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{http.StatusInternalServerError, "internalError", err.Error()}
	}
	item := map[string]string{"message": p.message, "domain": "global", "reason": p.reason}
	switch p.reason {
	case "rateLimitExceeded":
		item["domain"] = "usageLimits"
	case "authError":
		item["locationType"], item["location"] = "header", "Authorization"
	case "conditionNotMet":
		item["locationType"], item["location"] = "header", "If-Match"
	}
	fake.JSON(w, p.status, map[string]any{"error": map[string]any{
		"code": p.status, "message": p.message, "errors": []any{item},
	}})
}

// read decodes the body of a call.
func read(r *http.Request, v any) error {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return &problem{http.StatusBadRequest, "parseError", "Parse Error: " + err.Error()}
	}
	return nil
}

const (
	host = "https://www.googleapis.com/compute/v1/"
	gib  = 1 << 30
)

var (
	resourceName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelKey     = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}0-9_-]{0,62}$`)
	labelValue   = regexp.MustCompile(`^[\p{Ll}\p{Lo}0-9_-]{0,63}$`)
	uuid         = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

const maxLabels = 64

func checkName(name string) error {
	if !resourceName.MatchString(name) {
		return invalid("resource.name", name, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return invalid("resource.labels", "", "Too many labels.")
	}
	for k, v := range labels {
		if !labelKey.MatchString(k) {
			return invalid("resource.labels", k, "Label keys begin with a lower-case letter and have up to 63 lower-case letters, digits, underscores and dashes.")
		}
		if !labelValue.MatchString(v) {
			return invalid("resource.labels", v, "Label values have up to 63 lower-case letters, digits, underscores and dashes.")
		}
	}
	return nil
}

// fingerprint changes with the labels.
func fingerprint(labels map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(h, "%q=%q\n", k, labels[k])
	}
	return base64.URLEncoding.EncodeToString(h.Sum(nil)[:8])
}

// checkFingerprint refuses to change labels that the caller has not seen.
func checkFingerprint(got string, labels map[string]string) error {
	if got != fingerprint(labels) {
		return &problem{
			http.StatusPreconditionFailed, "conditionNotMet",
			"Labels fingerprint either invalid or resource labels have changed",
		}
	}
	return nil
}

// path is the part of a resource's URL from "projects/" on; a shorter one is completed.
func (c *Cloud) path(url string) string {
	if i := strings.Index(url, "projects/"); i >= 0 {
		return url[i:]
	}
	return "projects/" + c.cfg.Project + "/" + strings.TrimPrefix(url, "/")
}

// last is what comes after the last slash.
func last(url string) string { return url[strings.LastIndex(url, "/")+1:] }

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000-07:00") }

// decimal is how a number of 64 bits is written in JSON: as text.
func decimal[T int64 | uint64](n T) string { return fmt.Sprint(n) }
