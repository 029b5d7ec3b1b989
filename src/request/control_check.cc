#include "src/request/control_check.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "src/base/printable.h"
#include "src/request/reference_check.h"

namespace hotlora {

std::vector<ControlUse> CheckControls(const std::vector<ControlRef>& refs, Violations& violations) {
  if (refs.size() > kMaxControls) {
    violations.Add("controls", "has ", refs.size(), " entries; allowed are at most ", kMaxControls);
    return {};
  }
  std::vector<ControlUse> uses;
  for (size_t i = 0; i < refs.size(); ++i) {
    const ControlRef& ref = refs[i];
    ControlUse use;
    use.field = absl::StrCat("controls[", i, "]");
    use.name = CheckReferenceName(use.field + ".name", ref.name, violations);
    CheckReferencePicture(use.field + ".image", ref.image, violations);
    use.image = ref.image;
    use.scale = violations.RealInRange(use.field + ".scale", ref.scale, 0, kMaxControlScale, 1);
    use.range = violations.Range(use.field + ".start", ref.start, use.field + ".end", ref.end);
    use.type = ref.type;
    uses.push_back(std::move(use));
  }
  return uses;
}

absl::Status CheckControlTypes(const std::vector<ControlUse>& controls, absl::Span<const uint32_t> types) {
  Violations violations;
  for (size_t i = 0; i < controls.size(); ++i) {
    const ControlUse& control = controls[i];
    const std::string field = control.field + ".type";
    const std::string net = PrintableName(control.name);
    if (types[i] == 0 && control.type.has_value()) {
      violations.Add(field, "is ", *control.type, "; ControlNet ", net, " is of one kind and has no types");
    } else if (types[i] > 0 && !control.type.has_value()) {
      violations.Add(field, "is unset; the union net ", net, " needs one of its types, 0 to ", types[i] - 1);
    } else if (types[i] > 0 && *control.type >= types[i]) {
      violations.Add(field, "is ", *control.type, "; allowed with the union net ", net, " are 0 to ", types[i] - 1);
    }
  }
  return std::move(violations).ToStatus();
}

}  // namespace hotlora
