#ifndef HOTLORA_CLIENT_INSPECTION_REPORT_H_
#define HOTLORA_CLIENT_INSPECTION_REPORT_H_

// What `hotlora adapters inspect` prints.

#include <string>

#include <nlohmann/json.hpp>

#include "src/adapter_format/adapter_inspection.h"

namespace hotlora {

// `model` names what the adapter was matched with. A table for people, and the same as an object.
std::string InspectionText(const AdapterInspection& inspection, const std::string& file, const std::string& model);
nlohmann::json InspectionJson(const AdapterInspection& inspection, const std::string& file, const std::string& model);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_INSPECTION_REPORT_H_
