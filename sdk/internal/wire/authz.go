package wire

// The methods of an authorization plugin (moby pkg/authorization/api.go).
const (
	AuthZReq = "AuthZPlugin.AuthZReq"
	AuthZRes = "AuthZPlugin.AuthZRes"
)

// AuthZRequest is the body of [AuthZReq] and, with the Response fields, of [AuthZRes].
// The engine leaves out what is empty. RequestURI is the request target as the client
// sent it. RequestBody is there only for a JSON body that the engine cared to read; see
// package authz. A header has one value, the last that was sent.
type AuthZRequest struct {
	User                    string            `json:",omitempty"`
	UserAuthNMethod         string            `json:",omitempty"`
	RequestMethod           string            `json:",omitempty"`
	RequestURI              string            `json:"RequestUri,omitempty"`
	RequestBody             []byte            `json:",omitempty"`
	RequestHeaders          map[string]string `json:",omitempty"`
	RequestPeerCertificates [][]byte          `json:",omitempty"`
	ResponseStatusCode      int               `json:",omitempty"`
	ResponseBody            []byte            `json:",omitempty"`
	ResponseHeaders         map[string]string `json:",omitempty"`
}

// AuthZResponse answers both methods. With status 200 an engine looks at Allow alone
// and shows Msg where it is false; Err counts only beside another status.
type AuthZResponse struct {
	Allow bool
	Msg   string `json:",omitempty"`
	Err   string `json:",omitempty"`
}
