#ifndef HOTLORA_SRC_BASE_ERROR_REASON_H_
#define HOTLORA_SRC_BASE_ERROR_REASON_H_

// The machine-readable reasons of errors: ErrorInfo.reason on the wire, and in lower case the label `reason` of
// hotlora_requests_rejected_total. This is their one list; docs/errors.md says what to do about each.

namespace hotlora::error_reason {

// What a caller can get: the constant, and its text.
#define HOTLORA_REASONS_FOR_CALLERS(X)                           \
  X(kAdaptersInUse, "ADAPTERS_IN_USE")                           \
  X(kAdapterBudget, "ADAPTER_BUDGET")                            \
  X(kAdapterExists, "ADAPTER_EXISTS")                            \
  X(kAdapterFolder, "ADAPTER_FOLDER")                            \
  X(kAdapterFolderMissing, "ADAPTER_FOLDER_MISSING")             \
  X(kAdapterFolderReadOnly, "ADAPTER_FOLDER_READ_ONLY")          \
  X(kAdapterFolderReplaced, "ADAPTER_FOLDER_REPLACED")           \
  X(kAdapterInvalid, "ADAPTER_INVALID")                          \
  X(kAdapterMismatch, "ADAPTER_MISMATCH")                        \
  X(kAdapterNotFound, "ADAPTER_NOT_FOUND")                       \
  X(kAdapterUnsupported, "ADAPTER_UNSUPPORTED")                  \
  X(kBaseDamaged, "BASE_DAMAGED")                                \
  X(kCancelled, "CANCELLED")                                     \
  X(kClientShare, "CLIENT_SHARE")                                \
  X(kControlsInUse, "CONTROLS_IN_USE")                           \
  X(kControlBudget, "CONTROL_BUDGET")                            \
  X(kControlExists, "CONTROL_EXISTS")                            \
  X(kControlFolder, "CONTROL_FOLDER")                            \
  X(kControlFolderMissing, "CONTROL_FOLDER_MISSING")             \
  X(kControlFolderReadOnly, "CONTROL_FOLDER_READ_ONLY")          \
  X(kControlFolderReplaced, "CONTROL_FOLDER_REPLACED")           \
  X(kControlInvalid, "CONTROL_INVALID")                          \
  X(kControlMismatch, "CONTROL_MISMATCH")                        \
  X(kControlNotFound, "CONTROL_NOT_FOUND")                       \
  X(kDeadlineExceeded, "DEADLINE_EXCEEDED")                      \
  X(kDeviceFailed, "DEVICE_FAILED")                              \
  X(kDiskFull, "DISK_FULL")                                      \
  X(kDraining, "DRAINING")                                       \
  X(kEmbeddingFolder, "EMBEDDING_FOLDER")                        \
  X(kEmbeddingInvalid, "EMBEDDING_INVALID")                      \
  X(kEmbeddingMismatch, "EMBEDDING_MISMATCH")                    \
  X(kEmbeddingNotFound, "EMBEDDING_NOT_FOUND")                   \
  X(kFileUnreadable, "FILE_UNREADABLE")                          \
  X(kImageEncoderFolder, "IMAGE_ENCODER_FOLDER")                 \
  X(kImageEncoderInvalid, "IMAGE_ENCODER_INVALID")               \
  X(kImageEncoderMismatch, "IMAGE_ENCODER_MISMATCH")             \
  X(kImagePromptExists, "IMAGE_PROMPT_EXISTS")                   \
  X(kImagePromptFolder, "IMAGE_PROMPT_FOLDER")                   \
  X(kImagePromptFolderMissing, "IMAGE_PROMPT_FOLDER_MISSING")    \
  X(kImagePromptFolderReadOnly, "IMAGE_PROMPT_FOLDER_READ_ONLY") \
  X(kImagePromptFolderReplaced, "IMAGE_PROMPT_FOLDER_REPLACED")  \
  X(kImagePromptInvalid, "IMAGE_PROMPT_INVALID")                 \
  X(kImagePromptMismatch, "IMAGE_PROMPT_MISMATCH")               \
  X(kImagePromptNotFound, "IMAGE_PROMPT_NOT_FOUND")              \
  X(kInternal, "INTERNAL")                                       \
  X(kInvalidRequest, "INVALID_REQUEST")                          \
  X(kLoadsBusy, "LOADS_BUSY")                                    \
  X(kNonfiniteOutput, "NONFINITE_OUTPUT")                        \
  X(kNoAdapterFolder, "NO_ADAPTER_FOLDER")                       \
  X(kNoControlFolder, "NO_CONTROL_FOLDER")                       \
  X(kNoImageEncoder, "NO_IMAGE_ENCODER")                         \
  X(kNoImagePromptFolder, "NO_IMAGE_PROMPT_FOLDER")              \
  X(kOutOfFiles, "OUT_OF_FILES")                                 \
  X(kOutOfMemory, "OUT_OF_MEMORY")                               \
  X(kPermissionDenied, "PERMISSION_DENIED")                      \
  X(kPromptTooLong, "PROMPT_TOO_LONG")                           \
  X(kQueueFull, "QUEUE_FULL")                                    \
  X(kRequestIdRunning, "REQUEST_ID_RUNNING")                     \
  X(kRequestTimeLimit, "REQUEST_TIME_LIMIT")                     \
  X(kRowBroken, "ROW_BROKEN")                                    \
  X(kStarting, "STARTING")                                       \
  X(kUnauthenticated, "UNAUTHENTICATED")                         \
  X(kUnimplemented, "UNIMPLEMENTED")                             \
  X(kUploadsBusy, "UPLOADS_BUSY")                                \
  X(kUploadsOff, "UPLOADS_OFF")                                  \
  X(kUploadChecksum, "UPLOAD_CHECKSUM")                          \
  X(kUploadQuota, "UPLOAD_QUOTA")                                \
  X(kUploadSize, "UPLOAD_SIZE")                                  \
  X(kUploadStalled, "UPLOAD_STALLED")                            \
  X(kUploadTooLong, "UPLOAD_TOO_LONG")                           \
  X(kWorkStuck, "WORK_STUCK")

#define HOTLORA_DEFINE_REASON(name, text) inline constexpr char name[] = text;
HOTLORA_REASONS_FOR_CALLERS(HOTLORA_DEFINE_REASON)
#undef HOTLORA_DEFINE_REASON

// All of them, for the metric's label.
#define HOTLORA_LIST_REASON(name, text) name,
inline constexpr const char* kForCallers[] = {HOTLORA_REASONS_FOR_CALLERS(HOTLORA_LIST_REASON)};
#undef HOTLORA_LIST_REASON
#undef HOTLORA_REASONS_FOR_CALLERS

// What ends a server at its start. No call is answered with these.
inline constexpr char kModelChanged[] = "MODEL_CHANGED";
inline constexpr char kModelInvalid[] = "MODEL_INVALID";
inline constexpr char kModelUnsupported[] = "MODEL_UNSUPPORTED";

}  // namespace hotlora::error_reason

#endif  // HOTLORA_SRC_BASE_ERROR_REASON_H_
