//go:build pam

package main

/*
#cgo LDFLAGS: -lpam
#include <security/pam_appl.h>
#include <stdlib.h>
#include <string.h>

// answer gives the password to whatever is asked for unseen. A question whose
// answer would be shown is none that a mail client can answer.
static int answer(int n, const struct pam_message **asked, struct pam_response **out, void *password) {
	if (n < 1 || n > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	struct pam_response *list = calloc(n, sizeof *list);
	if (list == NULL)
		return PAM_BUF_ERR;
	int result = PAM_SUCCESS;
	for (int i = 0; i < n && result == PAM_SUCCESS; i++) {
		int style = asked[i]->msg_style;
		if (style == PAM_PROMPT_ECHO_OFF) {
			list[i].resp = strdup(password);
			result = list[i].resp == NULL ? PAM_BUF_ERR : PAM_SUCCESS;
		} else if (style == PAM_PROMPT_ECHO_ON)
			result = PAM_CONV_ERR;
	}
	if (result == PAM_SUCCESS) {
		*out = list;
		return result;
	}
	for (int i = 0; i < n; i++)
		free(list[i].resp);
	free(list);
	return result;
}

// verify asks for the password and for whether the account may be used.
static int verify(const char *service, const char *user, char *password) {
	struct pam_conv conversation = { answer, password };
	pam_handle_t *pam = NULL;
	int result = pam_start(service, user, &conversation, &pam);
	if (result != PAM_SUCCESS)
		return result;
	result = pam_authenticate(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (result == PAM_SUCCESS)
		result = pam_acct_mgmt(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	pam_end(pam, result);
	return result;
}
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// ask has PAM verify a password. An error means that it could not find out.
func ask(service, user, password string) (bool, error) {
	s, u, p := C.CString(service), C.CString(user), C.CString(password)
	defer C.free(unsafe.Pointer(s))
	defer C.free(unsafe.Pointer(u))
	defer func() {
		C.memset(unsafe.Pointer(p), 0, C.size_t(len(password)))
		C.free(unsafe.Pointer(p))
	}()
	switch result := C.verify(s, u, p); result {
	case C.PAM_SUCCESS:
		return true, nil
	case C.PAM_SYSTEM_ERR, C.PAM_ABORT, C.PAM_AUTHINFO_UNAVAIL, C.PAM_BUF_ERR, C.PAM_SERVICE_ERR, C.PAM_OPEN_ERR, C.PAM_SYMBOL_ERR:
		return false, fmt.Errorf("PAM cannot tell: error %d", int(result))
	}
	return false, nil
}
