#ifndef HOTLORA_SRC_BASE_ERROR_REASON_H_
#define HOTLORA_SRC_BASE_ERROR_REASON_H_

// The machine-readable reasons of errors: ErrorInfo.reason on the wire, and in lower case the label `reason` of
// hotlora_requests_rejected_total. This is their one list; docs/errors.md says what to do about each.

namespace hotlora::error_reason {

// What a caller can get.
inline constexpr char kAdaptersInUse[] = "ADAPTERS_IN_USE";
inline constexpr char kAdapterBudget[] = "ADAPTER_BUDGET";
inline constexpr char kAdapterExists[] = "ADAPTER_EXISTS";
inline constexpr char kAdapterFolder[] = "ADAPTER_FOLDER";
inline constexpr char kAdapterFolderMissing[] = "ADAPTER_FOLDER_MISSING";
inline constexpr char kAdapterFolderReadOnly[] = "ADAPTER_FOLDER_READ_ONLY";
inline constexpr char kAdapterFolderReplaced[] = "ADAPTER_FOLDER_REPLACED";
inline constexpr char kAdapterInvalid[] = "ADAPTER_INVALID";
inline constexpr char kAdapterMismatch[] = "ADAPTER_MISMATCH";
inline constexpr char kAdapterNotFound[] = "ADAPTER_NOT_FOUND";
inline constexpr char kAdapterUnsupported[] = "ADAPTER_UNSUPPORTED";
inline constexpr char kBaseDamaged[] = "BASE_DAMAGED";
inline constexpr char kCancelled[] = "CANCELLED";
inline constexpr char kClientShare[] = "CLIENT_SHARE";
inline constexpr char kDeadlineExceeded[] = "DEADLINE_EXCEEDED";
inline constexpr char kDeviceFailed[] = "DEVICE_FAILED";
inline constexpr char kDiskFull[] = "DISK_FULL";
inline constexpr char kDraining[] = "DRAINING";
inline constexpr char kEmbeddingFolder[] = "EMBEDDING_FOLDER";
inline constexpr char kEmbeddingInvalid[] = "EMBEDDING_INVALID";
inline constexpr char kEmbeddingMismatch[] = "EMBEDDING_MISMATCH";
inline constexpr char kEmbeddingNotFound[] = "EMBEDDING_NOT_FOUND";
inline constexpr char kFileUnreadable[] = "FILE_UNREADABLE";
inline constexpr char kInternal[] = "INTERNAL";
inline constexpr char kInvalidRequest[] = "INVALID_REQUEST";
inline constexpr char kLoadsBusy[] = "LOADS_BUSY";
inline constexpr char kNonfiniteOutput[] = "NONFINITE_OUTPUT";
inline constexpr char kNoAdapterFolder[] = "NO_ADAPTER_FOLDER";
inline constexpr char kOutOfFiles[] = "OUT_OF_FILES";
inline constexpr char kOutOfMemory[] = "OUT_OF_MEMORY";
inline constexpr char kPermissionDenied[] = "PERMISSION_DENIED";
inline constexpr char kPromptTooLong[] = "PROMPT_TOO_LONG";
inline constexpr char kQueueFull[] = "QUEUE_FULL";
inline constexpr char kRequestIdRunning[] = "REQUEST_ID_RUNNING";
inline constexpr char kRequestTimeLimit[] = "REQUEST_TIME_LIMIT";
inline constexpr char kRowBroken[] = "ROW_BROKEN";
inline constexpr char kStarting[] = "STARTING";
inline constexpr char kUnauthenticated[] = "UNAUTHENTICATED";
inline constexpr char kUnimplemented[] = "UNIMPLEMENTED";
inline constexpr char kUploadsBusy[] = "UPLOADS_BUSY";
inline constexpr char kUploadsOff[] = "UPLOADS_OFF";
inline constexpr char kUploadChecksum[] = "UPLOAD_CHECKSUM";
inline constexpr char kUploadQuota[] = "UPLOAD_QUOTA";
inline constexpr char kUploadSize[] = "UPLOAD_SIZE";
inline constexpr char kUploadStalled[] = "UPLOAD_STALLED";
inline constexpr char kUploadTooLong[] = "UPLOAD_TOO_LONG";
inline constexpr char kWorkStuck[] = "WORK_STUCK";

// What ends a server at its start. No call is answered with these.
inline constexpr char kModelChanged[] = "MODEL_CHANGED";
inline constexpr char kModelInvalid[] = "MODEL_INVALID";
inline constexpr char kModelUnsupported[] = "MODEL_UNSUPPORTED";

// The first group, for the metric's label.
inline constexpr const char* kForCallers[] = {
    kAdaptersInUse,
    kAdapterBudget,
    kAdapterExists,
    kAdapterFolder,
    kAdapterFolderMissing,
    kAdapterFolderReadOnly,
    kAdapterFolderReplaced,
    kAdapterInvalid,
    kAdapterMismatch,
    kAdapterNotFound,
    kAdapterUnsupported,
    kBaseDamaged,
    kCancelled,
    kClientShare,
    kDeadlineExceeded,
    kDeviceFailed,
    kDiskFull,
    kDraining,
    kEmbeddingFolder,
    kEmbeddingInvalid,
    kEmbeddingMismatch,
    kEmbeddingNotFound,
    kFileUnreadable,
    kInternal,
    kInvalidRequest,
    kLoadsBusy,
    kNonfiniteOutput,
    kNoAdapterFolder,
    kOutOfFiles,
    kOutOfMemory,
    kPermissionDenied,
    kPromptTooLong,
    kQueueFull,
    kRequestIdRunning,
    kRequestTimeLimit,
    kRowBroken,
    kStarting,
    kUnauthenticated,
    kUnimplemented,
    kUploadsBusy,
    kUploadsOff,
    kUploadChecksum,
    kUploadQuota,
    kUploadSize,
    kUploadStalled,
    kUploadTooLong,
    kWorkStuck,
};

}  // namespace hotlora::error_reason

#endif  // HOTLORA_SRC_BASE_ERROR_REASON_H_
