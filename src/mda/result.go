package mda

import "opensmtpd/src/mailerr"

// shutdown is the result of what was not begun before the end.
var shutdown = Result{mailerr.Temporary(451, 3, 2, "Shutting down", nil), "Shutting down"}
