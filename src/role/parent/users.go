package parent

// User is whom mail can be delivered to.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
}

// Users finds system users: in /etc/passwd, else by getent(1). In unprivileged
// mode it knows the running user alone.
type Users struct{}
