package ctl

// Traces returns the subsystems that "smtpctl trace" knows.
func Traces() []string {
	return []string{
		"imsg", "io", "smtp", "filters", "mta", "bounce", "scheduler", "expand",
		"lookup", "stat", "rules", "mproc", "all",
	}
}

// Profiles returns the subsystems that "smtpctl profile" knows.
func Profiles() []string { return []string{"imsg", "queue"} }
