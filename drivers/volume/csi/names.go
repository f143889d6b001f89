package csi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
)

// nameOf is what the storage is told as the name of a volume or snapshot: no longer than 37 bytes of lower-case
// letters, digits and dashes, which every storage takes. The same parts have the same name on every host; one that was
// spent has a nonce as another part.
func nameOf(namespace string, parts ...string) string {
	return namespace + "-" + digest(parts...)
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:10])
}

// nonce makes a name another one.
func nonce() string { return strings.ToLower(rand.Text()) }

// fileOf is the file of what is called name, which may be as long as a file's name may be.
func fileOf(dir, name string) string {
	if len(name) > 200 {
		name = "~" + digest("file", name) // which no name begins with
	}
	return filepath.Join(dir, name+".json")
}
